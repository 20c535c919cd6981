"""Whether a cell is validation-free: by its fit, its recipe's settings and what it starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clipbench.bench.planned import PlannedCell
from clipbench.bench.validation import validation_free
from clipbench.records.store import RecordStore, write_record
from tests.records.records import cell, record

OF = cell(recipe="full")


def planned(before: PlannedCell | None = None, **provenance: Any) -> PlannedCell:
    return PlannedCell(OF, record(OF)["key"], {}, {}, provenance, "no record", before)


def test_nobody_looked(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    assert validation_free(planned(selected_on={}), store, 0) is True
    assert validation_free(planned(selected_on={}), store, 8) is False
    assert validation_free(planned(selected_on={"model.lr": "val images"}), store, 0) is False


@pytest.mark.parametrize("before", [True, False, None])
def test_it_is_as_what_it_starts_from(tmp_path: Path, before: bool | None) -> None:
    write_record(tmp_path, record(OF, validation_free=before))
    child = planned(planned(), start={"recipe": "full", "key": record(OF)["key"]})
    assert validation_free(child, RecordStore(tmp_path), 0) is before
    assert validation_free(child, RecordStore(tmp_path), 1) is False


def test_of_a_file_of_weights_nobody_knows(tmp_path: Path) -> None:
    assert validation_free(planned(start={"sha256": "0" * 64}), RecordStore(tmp_path), 0) is None
