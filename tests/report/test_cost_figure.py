"""Accuracy against cost: points where the numbers are, a front that nothing beats, zero-shot as a line, all in grey."""

from __future__ import annotations

import io
import math
from typing import Any

import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from clipbench.errors import UnknownName
from clipbench.report.cost_figure import (
    COST_AXES,
    FRONT,
    FROZEN_NOVEL,
    accuracy_vs_cost,
    canvas,
    draw_costs,
    short_number,
)
from clipbench.report.labels import place_labels
from clipbench.report.naming import BEST, MOST
from tests.report.boards import apart_and_inside, assert_grey, board, outcomes

SCORES = {"zero_shot": (20, 30), "cheap": (28, 29), "dear": (32, 31), "worse": (27, 28), "tip_adapter": (36, 34)}
COSTS = {"zero_shot": 0, "cheap": 3_000, "dear": 200_000, "worse": 50_000, "tip_adapter": 1_000}


def frame(**changes: Any) -> pd.DataFrame:
    """Recipes of different cost; `tip_adapter` is frozen on novel classes."""
    some = outcomes(SCORES, **changes)
    for one in some:
        size = COSTS[one["cell"]["recipe"]]
        one["cost"] |= {"trained_parameters": size, "trained_parameters_end": size // 2, "stored_bytes": 4 * size}
        if one["cell"]["recipe"] == "zero_shot":
            one["cost"] |= {"seconds_per_step": None, "train_seconds": 0.0}
    return board(some)


def panel(drawn: Figure) -> Axes:
    drawn.canvas.draw()
    return drawn.axes[0]


def points_of(axes: Axes) -> dict[tuple[float, float], str]:
    """Position to face colour of every mark that has one."""
    lines = [line for line in axes.lines if line.get_marker() not in (None, "None", "") and len(line.get_xdata()) == 1]
    return {(float(x.get_xdata()[0]), float(x.get_ydata()[0])): str(x.get_markerfacecolor()) for x in lines}


def labels_of(axes: Axes) -> list[Annotation]:
    return [text for text in axes.texts if isinstance(text, Annotation) and text.get_text()]


def h_of(table: pd.DataFrame, recipe: str) -> float:
    return float(table.query("dataset == 'average' and recipe == @recipe")["h"].iloc[0])


def test_points_stand_at_their_cost_and_h_with_their_name() -> None:
    table = frame()
    axes = panel(accuracy_vs_cost(table))
    assert axes.get_xscale() == "log"
    trained = {name: (float(size), h_of(table, name)) for name, size in COSTS.items() if size}
    assert set(points_of(axes)) == set(trained.values())
    assert points_of(axes)[trained["tip_adapter"]] == "white", "a frozen novel rule is marked"
    names = {label.get_text() for label in labels_of(axes)}
    assert {"cheap", "dear", "worse", "tip_adapter†"} <= names
    left, right = axes.get_xlim()
    low, high = axes.get_ylim()
    assert all(left < x < right and low < y < high for x, y in points_of(axes))


def test_zero_shot_is_a_line_across() -> None:
    table = frame()
    axes = panel(accuracy_vs_cost(table))
    h = h_of(table, "zero_shot")
    assert f"zero_shot, H {h:.2f}" in {text.get_text() for text in axes.texts}
    assert [line for line in axes.lines if list(line.get_ydata()) == [h, h]]


def test_the_front_holds_what_nothing_beats_and_never_a_frozen_row() -> None:
    table = frame()
    (front,) = [line for line in panel(accuracy_vs_cost(table)).lines if line.get_label() == FRONT]
    corners = list(zip(front.get_xdata(), front.get_ydata(), strict=True))[:-1]
    assert corners == [(3_000, h_of(table, "cheap")), (200_000, h_of(table, "dear"))]


def test_what_zero_shot_beats_is_on_no_front() -> None:
    some = outcomes({"zero_shot": (30, 30), "poor": (25, 25)})
    for one in some:
        one["cost"]["trained_parameters"] *= one["cell"]["recipe"] != "zero_shot"
    axes = panel(accuracy_vs_cost(board(some)))
    assert len(points_of(axes)) == 1
    assert not [line for line in axes.lines if line.get_label() == FRONT]


@pytest.mark.parametrize("x", sorted(COST_AXES))
def test_every_column_of_cost_can_be_the_axis(x: str) -> None:
    axes = panel(accuracy_vs_cost(frame(), x))
    assert axes.get_xlabel() == COST_AXES[x]
    if x == "peak_bytes":  # nobody knows it here
        assert "not drawn: tip_adapter (unknown cost)" in axes.get_title()
    else:
        assert len(points_of(axes)) == 4


@pytest.mark.parametrize(("value", "text"), [(0.05, "0.05"), (0.5, "0.5"), (1, "1"), (20_000, "20 k"), (1e6, "1 M")])
def test_ticks_are_short(value: float, text: str) -> None:
    assert short_number(value) == text


def test_another_column_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'stored_bytes'"):
        accuracy_vs_cost(frame(), "store_bytes")


def test_few_shot_shows_accuracy_and_each_identity_has_a_panel() -> None:
    drawn = accuracy_vs_cost(board([*outcomes(), *outcomes(protocol="few_shot"), *outcomes(shots=4)]))
    assert len(drawn.axes) == 3
    assert sorted(axes.get_ylabel() for axes in drawn.axes) == ["H, %", "H, %", "accuracy, %"]


def test_recipes_with_missing_cells_are_named_instead_of_drawn() -> None:
    holed = [
        o for o in outcomes() if (o["cell"]["recipe"], o["cell"]["dataset"], o["cell"]["seed"]) != ("coop", "dtd", 2)
    ]
    axes = panel(accuracy_vs_cost(board(holed)))
    assert "coop (8/9 cells)" in axes.get_title()
    assert "coop" not in {label.get_text() for label in labels_of(axes)}
    axes = panel(accuracy_vs_cost(board(outcomes()[:1])))
    assert "nothing to draw yet" in axes.texts[0].get_text()


@pytest.mark.parametrize(("count", "named"), [(24, 24), (150, 1 + BEST)])
def test_labels_of_many_recipes_neither_collide_nor_leave_the_axes(count: int, named: int) -> None:
    """Within three points of H and one decade of cost; the cheapest is the worst and on the front."""
    recipes = {f"method_{number}": (28 + number % 4, 27 + number % 3) for number in range(count)}
    some = outcomes(recipes | {"method_0": (24, 24)}, seeds=1)
    for one in some:
        number = int(one["cell"]["recipe"].rpartition("_")[2])
        one["cost"]["trained_parameters"] = round(1000 * 10 ** (number / count))
    axes = panel(accuracy_vs_cost(board(some)))
    names = {label.get_text() for label in labels_of(axes)}
    assert named <= len(names) <= MOST
    (front,) = [line for line in axes.lines if line.get_label() == FRONT]
    corners = set(zip(front.get_xdata()[:-1], front.get_ydata()[:-1], strict=True))
    told = {tuple(label.xy) for label in labels_of(axes)}
    assert corners <= told
    assert len(corners) > 1
    apart_and_inside(axes, [label.get_window_extent() for label in labels_of(axes)])


def test_groups_are_named_in_the_legend_and_joined_where_asked() -> None:
    table = frame()
    rows = [row for row in table.to_dict("records") if row["dataset"] == "average"]
    drawn, (axes,) = canvas(1, len(rows))
    groups = {"size": ["dear", "cheap", "absent"], "kind": ["cheap", "worse"]}
    labels = draw_costs(axes, rows, "share", {"cheap": "the default"}, groups, ["size"])  # type: ignore[arg-type]
    place_labels(drawn, labels)
    drawn.canvas.draw()
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [FRONT, "size", "kind", FROZEN_NOVEL]
    assert "the default" in {label.get_text() for label in labels_of(axes)}
    joined = [
        list(line.get_ydata()) for line in axes.lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 2
    ]
    assert joined == [[h_of(table, "dear"), h_of(table, "cheap")]], "only what is told to be joined"
    shapes = {float(x.get_ydata()[0]): x.get_marker() for x in axes.lines if len(x.get_xdata()) == 1}
    assert len({shapes[h_of(table, name)] for name in ("cheap", "dear", "worse")}) == 3, "the default is in both groups"


def test_all_ink_is_grey_and_the_same_records_give_the_same_bytes() -> None:
    drawn = accuracy_vs_cost(frame())
    assert_grey(drawn)
    assert "say nothing about real accuracy" in drawn.get_supxlabel()

    def written() -> bytes:
        file = io.BytesIO()
        accuracy_vs_cost(frame()).savefig(file, format="pdf", metadata={"CreationDate": None})
        return file.getvalue()

    assert written() == written()
    assert not math.isnan(h_of(frame(), "dear"))
