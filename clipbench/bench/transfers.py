"""Cells of a transfer that were trained alike and differ by their targets alone: what is measured is not trained again.

Targets do not change what is learned, yet they stand in the key, since the outcome is that on all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from clipbench.records.store import Cell, Record, RecordStore, content_key


class Transfers:
    """The transfers that have a record in a run folder, read once.

    Args:
        store: the records.
        exactly: take none that was measured on more targets than are asked for.
    """

    def __init__(self, store: RecordStore, exactly: bool = False) -> None:
        self._store, self._exactly = store, exactly

    @functools.cached_property
    def _records(self) -> dict[Cell, list[Record]]:
        found: dict[Cell, list[Record]] = {}
        for record in self._store.all():
            if record.ok and record.provenance.get("targets"):
                found.setdefault(record.cell, []).append(record)
        return found

    def find(self, cell: Cell, determines: Mapping[str, Any]) -> tuple[str, str | None, frozenset[str]]:
        """The key of a cell, why it has to be run (None: it is done), and the keys of records trained alike.

        Where it has no record of its own, one that was measured on more targets than it asks for is its record too.

        Args:
            cell: of any protocol.
            determines: everything that its key is made of; of a transfer `targets` too.
        """
        key, targets = content_key(determines), determines.get("targets")
        undone = self._store.why_undone(cell, key)
        if not targets:
            return key, undone, frozenset()
        alike = [
            record
            for record in self._records.get(cell, ())
            if record.key == content_key({**determines, "targets": record.provenance["targets"]})
        ]
        for record in sorted(alike, key=lambda one: one.finished):
            covers = not self._exactly and all(
                record.provenance["targets"].get(name) == images for name, images in targets.items()
            )
            if undone is not None and covers and self._store.why_undone(cell, record.key) is None:
                key, undone = record.key, None
        return key, undone, frozenset(record.key for record in alike) - {key}
