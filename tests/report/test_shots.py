"""Several numbers of shots: the table of recipes by shots, that of shots by dataset, and the learning curves."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.axes import Axes

from clipbench.commands.table import table
from clipbench.records.cell import Cell
from clipbench.records.store import run_folder
from clipbench.report.aggregate import averages_of, rows_of
from clipbench.report.drawing import save_figure
from clipbench.report.layout import Section
from clipbench.report.leaderboard import write_leaderboard
from clipbench.report.shots_figure import learning_curves
from clipbench.report.tables import layout_of, render
from tests.report.boards import DATASETS, board, outcomes, write
from tests.report.test_tables import check_structure

AT = {1: {"zero_shot": (20, 0), "coop": (18, 0)}, 4: {"zero_shot": (20, 0), "coop": (30, 0)}}


def few_shot(at: dict[int, dict[str, tuple[int, int]]] | None = None, **more: Any) -> list[dict[str, Any]]:
    identity = {"protocol": "few_shot"} | more
    return [one for shots, recipes in (at or AT).items() for one in outcomes(recipes, shots=shots, **identity)]


def of_shots(frame: pd.DataFrame) -> Section:
    return layout_of(frame)[0][-1]


def curves(axes: Axes) -> dict[str, tuple[list[float], list[float]]]:
    """By recipe: heights of its points, half lengths of its bars."""
    handles, names = axes.get_legend_handles_labels()
    found = {}
    for (line, _, (bars,)), name in zip(handles, names, strict=True):
        halves = [(top - bottom) / 2 for (_, bottom), (_, top) in bars.get_segments()]
        found[name] = ([float(y) for y in line.get_ydata()], halves)
    return found


def test_recipes_by_shots_ranked_within_each_number() -> None:
    frame = board(few_shot())
    section = of_shots(frame)
    assert section.title.endswith("few-shot, all classes, setting paper, 1, 4 shots")
    assert section.summary.heads == ["Recipe", "1 shot", "4 shots"]
    shown = {line.label: [(entry.text, entry.mark) for entry in line.entries] for line in section.summary.lines}
    averages = {(row["recipe"], row["shots"]): f"{row['accuracy']:.2f}" for row in averages_of(rows_of(frame))}
    assert list(shown) == ["coop", "zero_shot"], "the best at the most shots first"
    assert shown["coop"] == [(averages["coop", 1], "second"), (averages["coop", 4], "best")]
    assert shown["zero_shot"] == [(averages["zero_shot", 1], "best"), (averages["zero_shot", 4], "second")]


def test_each_recipe_has_its_shots_against_the_datasets() -> None:
    frame = board(few_shot())
    grid = of_shots(frame).details[0]
    assert grid.title == "coop: Accuracy by shots and dataset"
    assert grid.heads == ["Shots", *DATASETS, "average"]
    places = {(row["recipe"], row["shots"], row["dataset"]): f"{row['accuracy']:.2f}" for row in rows_of(frame)}
    for line, shots in zip(grid.lines, (1, 4), strict=True):
        assert line.label == f"{shots} shot" + "s" * (shots > 1)
        assert [entry.text for entry in line.entries] == [places["coop", shots, name] for name in grid.heads[1:]]
    check_structure(render(frame, "tex"))
    for form in ("md", "tex"):
        assert "coop: Accuracy by shots and dataset" in render(frame, form)
    assert "by shots and dataset" not in render(frame, "text"), "of several recipes a terminal shows the averages"
    assert "1 shot" in render(board(few_shot({1: {"coop": (20, 0)}, 4: {"coop": (30, 0)}})), "text")


def test_one_number_of_shots_is_no_series() -> None:
    frame = board(few_shot({4: AT[4]}))
    assert len(layout_of(frame)[0]) == 1
    assert learning_curves(frame) is None


def test_settings_and_backbones_are_series_of_their_own() -> None:
    frame = board([*few_shot(), *few_shot(setting="fixed")])
    titles = [section.title for section in layout_of(frame)[0]]
    assert [title for title in titles if title.endswith("1, 4 shots")] == [titles[-2], titles[-1]]
    drawn = learning_curves(frame)
    assert drawn is not None
    assert len(drawn.axes) == 2 * (len(DATASETS) + 1)


def test_of_base_to_novel_h_is_shown() -> None:
    both = [*outcomes(), *outcomes(shots=4)]
    section = of_shots(board(both))
    assert section.summary.title == "H by shots, average over 3 datasets"
    assert [line.marks for line in section.summary.lines if line.label == "tip_adapter"] == ["†"]
    assert [entry.mark for line in section.summary.lines if line.frozen for entry in line.entries] == ["", ""]


def test_a_curve_is_the_mean_with_the_spread_over_seeds() -> None:
    frame = board(few_shot())
    drawn = learning_curves(frame)
    assert drawn is not None
    assert [axes.get_title() for axes in drawn.axes] == [*DATASETS, "average over 3 datasets"]
    rows = {(row["recipe"], row["dataset"], row["shots"]): row for row in rows_of(frame)}
    for axes, dataset in zip(drawn.axes, [*DATASETS, "average"], strict=True):
        assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "4"]
        for recipe, (heights, halves) in curves(axes).items():
            own = [rows[recipe, dataset, shots] for shots in (1, 4)]
            assert heights == pytest.approx([row["accuracy"] for row in own])
            assert halves == pytest.approx([row["accuracy_std"] for row in own])
    (legend,) = drawn.legends
    assert [text.get_text() for text in legend.get_texts()] == ["coop", "zero_shot"]


def test_what_lacks_cells_is_named_and_its_means_are_left_out() -> None:
    some = [
        one for one in few_shot()
        if (one["cell"]["recipe"], one["cell"]["dataset"], one["cell"]["shots"], one["cell"]["seed"])
        != ("coop", "dtd", 4, 2)
    ]  # fmt: skip
    frame = board(some)
    section = of_shots(frame)
    shown = {line.label: [entry.text for entry in line.entries] for line in section.summary.lines}
    assert shown["coop"][1] == "–"  # noqa: RUF001
    assert "no average, because cells are missing" in section.caption
    by_dataset = {grid.title: grid for grid in section.details}["coop: Accuracy by shots and dataset"]
    assert by_dataset.lines[1].entries[by_dataset.heads.index("dtd") - 1].partial
    drawn = learning_curves(frame)
    assert drawn is not None
    assert "not drawn: coop (8/9 cells)" in " ".join(drawn.axes[-1].get_title().split())
    handles, names = drawn.axes[-1].get_legend_handles_labels()
    (line,) = [handle[0] for handle, name in zip(handles, names, strict=True) if name == "coop"]
    assert [math.isnan(height) for height in line.get_ydata()] == [False, True]


def test_the_figure_is_a_file_beside_the_leaderboard_and_the_same_twice(tmp_path: Path) -> None:
    write(tmp_path, few_shot())
    board_ = write_leaderboard(tmp_path, datasets=DATASETS)
    file = board_.files["curves.pdf"]
    assert file.name == "learning_curves.pdf"
    drawn = learning_curves(board_.frame)
    assert drawn is not None
    assert save_figure(drawn, tmp_path / "again")["pdf"].read_bytes() == file.read_bytes()


def test_table_takes_several_numbers_of_shots(tmp_path: Path) -> None:
    write(run_folder(tmp_path, "mini", "few_shot"), few_shot(AT | {16: AT[4]}))
    text, _ = table(tmp_path, "mini", "few_shot", "md", wanted={"shots": ["1", "16"], "dataset": list(DATASETS)})
    assert "1, 16 shots" in text
    assert "4 shots" not in text


def test_names_of_files_differ_by_shots() -> None:
    one, other = (Cell("mini", "dtd", "coop", "mini", "few_shot", "paper", shots, 1) for shots in (1, 4))
    assert one.name != other.name
