"""The column of validation-free rows, their mark and the filter."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from clipbench.commands.table import table
from clipbench.errors import RecordError
from clipbench.records.cell import Record
from clipbench.records.store import run_folder
from clipbench.report.record_text import record_text
from clipbench.report.tables import render
from tests.records.records import record
from tests.report.boards import board, outcomes, write

SAID = {"zero_shot": True, "clipfit": False, "coop": None}


def stated(**changes: Any) -> list[dict[str, Any]]:
    """Zero-shot is free, CLIPFit is not; CoOp's records are of before, but for one on dtd that is free."""
    some = outcomes(**changes)
    for one in some:
        of = one["cell"]
        said = SAID.get(of["recipe"])
        if said is not None or (of["recipe"], of["dataset"]) == ("coop", "dtd"):
            one["validation_free"] = said is not False
    return some


def test_a_row_is_free_where_all_its_cells_are() -> None:
    some = stated()
    (one,) = [
        one for one in some
        if (one["cell"]["recipe"], one["cell"]["dataset"], one["cell"]["seed"]) == ("zero_shot", "dtd", 2)
    ]  # fmt: skip
    one["validation_free"] = False
    rows = list(csv.DictReader(io.StringIO(render(board(some), "csv"))))
    said = {(row["recipe"], row["dataset"]): row["validation_free"] for row in rows}
    assert said["zero_shot", "imagenet"] == "true"
    assert said["zero_shot", "dtd"] == said["zero_shot", "average"] == said["clipfit", "average"] == "false"
    assert (said["coop", "dtd"], said["coop", "imagenet"], said["coop", "average"]) == ("true", "", "")


@pytest.mark.parametrize("form", ["md", "tex", "text"])
def test_rows_that_are_not_are_marked_with_a_line_below(form: str) -> None:
    shown, space = " ".join(render(board(stated()), form).split()), "" if form == "tex" else " "
    mark = r"$^\ddagger$" if form == "tex" else "‡"
    assert f"clipfit{space}{mark}" in shown
    assert shown.count("zero") > shown.count(f"shot{space}{mark}") == 0
    assert f"{mark} a setting was chosen by looking at labelled images" in shown
    assert mark not in render(board(outcomes()), form)


def test_table_filters_by_it_and_names_what_it_leaves_out(tmp_path: Path) -> None:
    write(run_folder(tmp_path, "mini", "base_to_novel"), stated())
    text, notes = table(tmp_path, "mini", "base_to_novel", "csv", validation_free=True)
    assert {row["recipe"] for row in csv.DictReader(io.StringIO(text))} == {"zero_shot"}
    assert any("clipfit" in note and "coop" in note and "zero_shot" not in note for note in notes)
    text, _ = table(tmp_path, "mini", "base_to_novel", "csv", per_seed=True, validation_free=True)
    assert {row["recipe"] for row in csv.DictReader(io.StringIO(text))} == {"zero_shot"}
    with pytest.raises(RecordError, match=r"no row of the records in .* says that it is validation-free"):
        table(tmp_path, "mini", "base_to_novel", wanted={"recipe": ["clipfit"]}, validation_free=True)


def test_a_record_says_why_it_is_not() -> None:
    why = {"selected_on": {"model.lr": "val images of mini", "trainer.max_epochs": "val images of mini"}}
    said = record_text(Record(record(validation_free=False, provenance=why | {"val_images": 8})))
    assert "the fit looked at 8 val images" in said
    assert "model.lr, trainer.max_epochs chosen on val images of mini" in said
    assert "yes: no setting was chosen" in record_text(Record(record(validation_free=True)))
    assert "no: what it starts from is not" in record_text(Record(record(validation_free=False)))
    assert "validation-free" not in record_text(Record(record()))


def test_a_record_says_how_a_setting_was_chosen() -> None:
    how = {"chosen_by": "cross-validation with 4 folds inside the train draw", "log10_c": 5.0}
    said = record_text(Record(record() | {"diagnostics": how}))
    assert "what the fit found\n  chosen_by cross-validation with 4 folds inside the train draw\n  log10_c 5.0" in said
    assert "what the fit found" not in record_text(Record(record() | {"diagnostics": {}}))
