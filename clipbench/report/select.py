"""Which records count for a leaderboard; each one that does not is named in a note."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from clipbench.records.store import Cell, Record


class Planned(Protocol):
    """A cell of a plan with its content key."""

    @property
    def cell(self) -> Cell:
        """What is asked."""

    @property
    def key(self) -> str:
        """The key that its record must have."""


class Selection(NamedTuple):
    """The records that count, the cells that failed or are planned without a record, and what to say."""

    records: list[Record]
    missing: list[Cell]
    notes: list[str]


def select(records: Iterable[Record], expected: Iterable[Planned] | None = None) -> Selection:
    """At most one record per cell, and per row only records that belong together.

    A planned cell counts only with the key of the plan. Of several records of one cell the one finished last counts.
    Within a row (recipe, protocol, shots ...) numbers of different classes, code, backbone weights, precisions or
    changes by the user (`--set`, `--config`) are never averaged: the variant with most cells of the plan counts, then
    that with most cells, then the latest; the rest is missing.

    Args:
        records: in any order.
        expected: the plan's cells with their keys.
    """
    records = sorted(records, key=lambda record: (record.cell, record.finished, record.key))
    keys = {planned.cell: planned.key for planned in expected or ()}
    good: dict[tuple[Cell, str], Record] = {}
    failures: dict[Cell, Record] = {}
    several: dict[tuple, set[Cell]] = defaultdict(set)
    for record in records:
        if record.cell in keys and record.key != keys[record.cell]:
            continue  # of former settings; the plan says which ones are asked for now
        if not record.ok:
            failures[record.cell] = record
            continue
        place = (record.cell, _variant(record))
        if place in good:
            several[row_of(record.cell)].add(record.cell)
        good[place] = record
    notes = [f"{row[5]}: {_cells(cells)} with several settings; the latest counts" for row, cells in several.items()]
    kept, left_out = _one_variant_per_row(good.values(), keys)
    notes += left_out
    failed = {cell: record for cell, record in failures.items() if cell not in kept}
    notes += [f"{cell} failed: {record.error}" for cell, record in failed.items()]
    known = {record.cell for record in records} | set(keys)
    missing = sorted(cell for cell in known if cell not in kept)
    return Selection(list(kept.values()), missing, notes)


def row_of(cell: Cell) -> tuple[str, str, str, str, int, str]:
    """What rows are told apart by: suite, backbone, protocol, setting, shots, recipe."""
    return (cell.suite, cell.backbone, cell.protocol, cell.setting, cell.shots, cell.recipe)


def _variant(record: Record) -> str:
    """Numbers of different variants do not belong into one average."""
    provenance = record.provenance
    names = ("versions", "class_path", "code", "backbone_hash", "precision", "changed")
    return json.dumps([provenance.get(name) for name in names], sort_keys=True)


def _one_variant_per_row(good: Iterable[Record], keys: dict[Cell, str]) -> tuple[dict[Cell, Record], list[str]]:
    rows: dict[tuple, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in good:
        rows[row_of(record.cell)][_variant(record)].append(record)
    notes, kept = [], {}
    for row, variants in rows.items():
        best = max(variants.values(), key=lambda some: (
            sum(record.cell in keys for record in some), len(some), max(record.finished for record in some),
        ))  # fmt: skip
        kept.update({record.cell: record for record in best})
        others = [record.cell for some in variants.values() if some is not best for record in some]
        if others:
            notes.append(f"{row[5]}: {_cells(others)} of another code version, backbone, precision or setting left out")
    return kept, notes


def _cells(cells: Iterable[Cell]) -> str:
    """`2 cells (dtd seed 1, dtd seed 2)`."""
    names = [f"{cell.dataset} seed {cell.seed}" for cell in sorted(cells)]
    shown = ", ".join(names[:6]) + (" ..." if len(names) > 6 else "")
    return f"{len(names)} {'cell' if len(names) == 1 else 'cells'} ({shown})"
