"""Which records count for a table, and in which row; each one that does not count is named in a note."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from clipbench.records.store import Cell, Record
from clipbench.report.variants import Difference, difference, name_rows, names_of_data, reasons, table_of


class Planned(Protocol):
    """A cell of a plan with its content key."""

    @property
    def cell(self) -> Cell:
        """What is asked."""

    @property
    def key(self) -> str:
        """The key that its record must have."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What its record will say of where it comes from."""


@dataclass(frozen=True, order=True)
class Absent(Cell):
    """A cell that failed or is planned without a record, and the row that it is missing from."""

    variant: str = ""


class Selection(NamedTuple):
    """The records that count, each with the variant of its row, the cells that are missing, and what to say."""

    records: list[Record]
    missing: list[Absent]
    notes: list[str]


Rows = dict[tuple, dict[Difference, dict[Cell, Record | None]]]


def select(records: Iterable[Record], expected: Iterable[Planned] | None = None, apart: bool = True) -> Selection:
    """At most one record per cell and row, and per row only records that belong together.

    A row holds cells of one recipe, class, code, backbone, precision and variant, whose datasets have one fingerprint
    each; every difference is a row of its own (`report/variants.py`). A planned cell counts only with the key of the
    plan. Of several records of one cell in one row the one finished last counts; where they are of one training that
    was measured on different targets, they count together.

    Args:
        records: in any order.
        expected: the plan's cells with their keys; those that are `beside` them count too.
        apart: False: of several rows of a recipe only that of the plan is kept, for tables that name their rows.
    """
    records = sorted(records, key=lambda record: (record.cell, record.finished, record.key))
    planned = list(expected or ())
    first = [(one.cell, one.provenance) for one in planned]
    data_of = names_of_data([*((record.cell, record.provenance) for record in records), *first], first)

    def apart_by(cell: Cell, provenance: Mapping[str, Any]) -> Difference:
        return difference(provenance, data_of(cell, provenance))

    asked = {(one.cell, apart_by(one.cell, one.provenance)): {one.key, *getattr(one, "beside", ())} for one in planned}
    # of the key of the plan is of its row: what the record says beside that has not acted
    of_plan = {(cell, key): of for (cell, of), keys in asked.items() for key in keys}
    rows: Rows = defaultdict(lambda: defaultdict(dict))
    failures: dict[tuple[Cell, Difference], Record] = {}
    several: dict[str, set[Cell]] = defaultdict(set)
    for record in records:
        of = of_plan.get((record.cell, record.key)) or apart_by(record.cell, record.provenance)
        place = (record.cell, of)
        if record.key not in asked.get(place, {record.key}):
            continue  # of a former key; the plan says which one is asked for now
        there = rows[row_of(record.cell)][of]
        if not record.ok:
            failures[place] = record
            there.setdefault(record.cell, None)
            continue
        former = there.get(record.cell)
        if former is not None and not trained_alike(former, record):
            several[record.cell.recipe].add(record.cell)
            former = None
        there[record.cell] = record if former is None else with_targets_of(former, record)
    for cell, of in asked:
        rows[row_of(cell)][of].setdefault(cell, None)
    notes = [f"{recipe}: {_cells(cells)} with several keys; the latest counts" for recipe, cells in several.items()]
    selection = Selection([], [], notes)
    for row, groups in rows.items():
        _add(selection, row, groups, {of for cell, of in asked if row_of(cell) == row}, apart)
    failed = {cell: record for (cell, of), record in failures.items() if rows[row_of(cell)][of][cell] is None}
    notes += [f"{cell} failed: {record.error}" for cell, record in failed.items()]
    return selection


def trained_alike(one: Record, other: Record) -> bool:
    """Whether two records of a cell are of one training that was measured on different targets."""
    first, second = (dict(record.provenance) for record in (one, other))
    targets = first.pop("targets", None), second.pop("targets", None)
    return all(targets) and targets[0] != targets[1] and first == second


def with_targets_of(former: Record, record: Record) -> Record:
    """A record with the splits of the targets that only a former one of the same training has."""
    targets = {**former.provenance["targets"], **record.provenance["targets"]}
    splits = {**former.splits, **record.splits}
    more = {"splits": splits, "provenance": record.provenance | {"targets": targets}}
    return replace(record, data=record.data | more)


def row_of(cell: Cell) -> tuple:
    """What rows are told apart by before their variants: suite, backbone, protocol, setting, shots, recipe."""
    return (*table_of(cell), cell.recipe)


def _add(
    selection: Selection, row: tuple, groups: Mapping[Difference, dict[Cell, Record | None]], asked: set[Difference],
    apart: bool,
) -> None:  # fmt: skip
    """The rows of one recipe, named."""

    def weight(of: Difference) -> tuple:
        there = [record for record in groups[of].values() if record is not None]
        return (of in asked, len(there), max((record.finished for record in there), default=""))

    order = sorted(groups, key=weight)
    if not apart:
        others = [cell for of in order[:-1] for cell, record in groups[of].items() if record is not None]
        if others:
            what = ", ".join(reasons(groups))
            selection.notes.append(f"{row[-1]}: {_cells(others)} left out, of another row: other {what}")
        order = order[-1:]
    names = name_rows({of: place for place, of in enumerate(order)}) if apart else dict.fromkeys(order, "")
    if len(order) > 1:
        what = ", ".join(reasons(order))
        selection.notes.append(f"{row[-1]}: {len(order)} rows, which are kept apart by {what}")
    for of in order:
        for cell, record in groups[of].items():
            if record is None:
                selection.missing.append(Absent(**cell.as_dict(), variant=names[of]))
            else:
                selection.records.append(replace(record, variant=names[of]))


def _cells(cells: Sequence[Cell] | set[Cell]) -> str:
    """`2 cells (dtd seed 1, dtd seed 2)`."""
    names = [f"{cell.dataset} seed {cell.seed}" for cell in sorted(cells)]
    shown = ", ".join(names[:6]) + (" ..." if len(names) > 6 else "")
    return f"{len(names)} {'cell' if len(names) == 1 else 'cells'} ({shown})"
