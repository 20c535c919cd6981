"""What tables show of all classes at once: averages, marks, older records beside newer ones, one seed a line."""

from __future__ import annotations

import io
import math
from typing import Any

import pandas as pd
import pytest

from clipbench.records.cell import Record
from clipbench.report.aggregate import averages_of, rows_of
from clipbench.report.harmonic import harmonic_mean
from clipbench.report.layout import Grid, Section
from clipbench.report.record_text import record_text
from clipbench.report.tables import layout_of, render
from tests.records.records import cell, joint, record
from tests.report.boards import DATASETS, board, outcomes
from tests.report.test_tables import check_structure


def measured(**more: Any) -> list[dict[str, Any]]:
    """The usual board, each record with numbers over all classes that follow its own."""
    some = outcomes(**more)
    for one in some:
        base, novel = (one["splits"][half]["correct"] for half in ("base", "novel"))
        one["joint"] = joint(base - 5, novel - 10, pairs=((base - 5) * (novel - 5), 10, 1600))
    return some


WHOLE = board(measured())


def section_of(frame: pd.DataFrame) -> Section:
    (section,), _ = layout_of(frame)
    return section


def columns(grid: Grid) -> dict[str, list[str]]:
    return {line.label: [entry.text for entry in line.entries] for line in grid.lines}


def test_the_columns_are_means_over_seeds_then_datasets_and_h_of_the_averages() -> None:
    (average,) = [row for row in averages_of(rows_of(WHOLE)) if row["recipe"] == "clipfit"]
    own = [one for one in measured() if one["cell"]["recipe"] == "clipfit"]
    base, novel, auc = (
        sum(Record(one).joint()[name] for one in own) / len(own)
        for name in ("joint_base", "joint_novel", "openworld_auc")
    )
    assert average["joint_base"] == pytest.approx(base)
    assert average["joint_novel"] == pytest.approx(novel)
    assert average["joint_h"] == pytest.approx(harmonic_mean(base, novel))
    assert average["openworld_auc"] == pytest.approx(auc)
    assert average["joint_base_std"] == pytest.approx(2.5), "each seed has one image of forty less than the one before"


def test_a_table_of_its_own_ranks_who_has_a_classifier_for_novel_classes() -> None:
    (table,) = section_of(WHOLE).beside
    assert table.heads == ["Recipe", "Joint base", "Joint novel", "Joint H", "OpenworldAUC"]
    marks = {line.label: [entry.mark for entry in line.entries] for line in table.lines}
    assert marks["tip_adapter"] == [""] * 4, "answers zero-shot on novel classes"
    assert [name for name, line in marks.items() if line[0] == "best"] == ["coop"]
    assert all(any(line[place] == "best" for line in marks.values()) for place in range(4))
    assert {line.label: line.frozen for line in table.lines}["tip_adapter"]
    for form in ("md", "tex", "text"):
        shown = " ".join(render(WHOLE, form).split())
        assert "OpenworldAUC" in shown
        assert "zero-shot divides the probability" in shown
    check_structure(render(WHOLE, "tex"))
    titles = [grid.title for grid in section_of(WHOLE).details]
    assert titles[-2:] == ["Joint H by dataset", "OpenworldAUC by dataset"]
    assert "OpenworldAUC by dataset" not in render(WHOLE, "text"), "a terminal has no room for it"


def test_csv_has_two_decimals_and_older_records_leave_the_columns_empty() -> None:
    again = pd.read_csv(io.StringIO(render(WHOLE, "csv")))
    assert (again["joint_h"] - WHOLE["joint_h"]).abs().max() < 0.0051
    older = pd.read_csv(io.StringIO(render(board(outcomes()), "csv")))
    assert older[["joint_base", "joint_novel", "joint_h", "openworld_auc"]].isna().all(axis=None)
    assert section_of(board(outcomes())).beside == []


def test_a_row_of_older_and_newer_records_has_no_mean_over_some_of_them() -> None:
    some = measured()
    for one in some:
        if (one["cell"]["recipe"], one["cell"]["dataset"], one["cell"]["seed"]) == ("coop", "dtd", 2):
            del one["joint"]
    frame = board(some)
    own = {row["dataset"]: row for row in rows_of(frame) if row["recipe"] == "coop"}
    assert [name for name, row in own.items() if math.isnan(row["openworld_auc"])] == ["dtd", "average"]
    assert not math.isnan(own["average"]["h"])
    (table,) = section_of(frame).beside
    assert columns(table)["coop"] == ["–"] * 4  # noqa: RUF001
    assert "from before it was measured" in section_of(frame).caption
    assert "from before it was measured" not in section_of(WHOLE).caption


def test_one_seed_a_line() -> None:
    from clipbench.report.aggregate import aggregate
    from clipbench.report.cells import cells_of

    frame = aggregate(cells_of(map(Record, measured(seeds=2))), (), {"mini": DATASETS}, per_seed=True)
    (table,) = section_of(frame).beside
    assert columns(table)["clipfit, seed 2"][0] != columns(table)["clipfit, seed 1"][0]
    assert all(entry.mark == "" for line in table.lines for entry in line.entries)


def test_a_record_says_its_counts_or_why_there_are_none() -> None:
    said = record_text(Record(record(joint=joint())))
    assert "base among all 10 classes 62.50 %: 25 of 40 images" in said
    assert "OpenworldAUC 31.25 %: 500 of 1600 pairs won, 0 tied" in said
    assert "not measured over all classes at once: a reason" in record_text(Record(record(no_joint="a reason")))
    assert "all classes" not in record_text(Record(record()))
    few = record(cell(protocol="few_shot"))
    assert "OpenworldAUC" not in record_text(Record(few))
