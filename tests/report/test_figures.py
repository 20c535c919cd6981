"""Figures: labels that do not collide, shapes instead of colours, the same bytes from the same records."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from clipbench.report.figures import figure
from clipbench.report.labels import Labels, place_labels
from clipbench.report.naming import BEST, LEGEND, MOST
from tests.report.boards import apart_and_inside, assert_grey, board, outcomes


def labels_of(axes: Axes) -> list[Annotation]:
    return [text for text in axes.texts if isinstance(text, Annotation) and text.get_text()]


def panel(frame: pd.DataFrame) -> tuple[Figure, Axes]:
    drawn = figure(frame)
    drawn.canvas.draw()
    return drawn, drawn.axes[0]


def test_every_complete_recipe_is_drawn_with_a_shape_and_a_name_of_its_own() -> None:
    _, axes = panel(board(outcomes()))
    points = [line for line in axes.lines if line.get_marker() not in (None, "None", "")]
    assert len(points) == 4
    assert len({line.get_marker() for line in points}) == 4
    assert {label.get_text() for label in labels_of(axes)} == {"zero_shot", "clipfit", "coop", "tip_adapter†"}
    places = {(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in points}
    assert (72.5, 75.0) in places, "base to the right, novel upwards"


def test_all_ink_is_grey() -> None:
    drawn, _ = panel(board(outcomes()))
    assert_grey(drawn)


def test_curves_have_the_h_that_they_say() -> None:
    _, axes = panel(board(outcomes()))
    curves = [line for line in axes.lines if line.get_marker() in (None, "None", "")]
    assert len(curves) >= 3
    for line in curves:
        base, novel = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
        h = 2 * base * novel / (base + novel)
        assert np.ptp(h) < 1e-9
        assert h[0] == pytest.approx(round(2 * h[0]) / 2)
    said = [float(text.get_text()[2:]) for text in axes.texts if text.get_text().startswith("H ")]
    assert said
    assert set(said) <= {round(2 * float(x * y / (x + y)), 6) for x, y in (
        (line.get_xdata()[0], line.get_ydata()[0]) for line in curves)}  # fmt: skip


def test_recipes_with_missing_cells_are_named_instead_of_drawn() -> None:
    lost = ("coop", "dtd", 2)
    holed = [one for one in outcomes() if tuple(one["cell"][k] for k in ("recipe", "dataset", "seed")) != lost]
    _, axes = panel(board(holed))
    assert "coop" not in {label.get_text() for label in labels_of(axes)}
    assert "coop (8/9 cells)" in axes.get_title()
    _, axes = panel(board(outcomes()[:1]))
    assert "nothing to draw yet" in axes.texts[0].get_text()


def test_few_shot_is_drawn_over_the_shots() -> None:
    frame = board([*outcomes(protocol="few_shot"), *outcomes(protocol="few_shot", shots=1)])
    drawn, axes = panel(frame)
    assert len(drawn.axes) == 1
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "16"]
    assert len(labels_of(axes)) == 4


def test_settings_and_shots_have_panels_of_their_own() -> None:
    drawn = figure(board([*outcomes(), *outcomes(shots=4), *outcomes(setting="fixed")]))
    assert len(drawn.axes) == 3


def test_the_mini_suite_says_what_it_is() -> None:
    drawn, _ = panel(board(outcomes()))
    assert "say nothing about real accuracy" in " ".join(drawn.get_supxlabel().split())
    drawn, _ = panel(board(outcomes(suite="clip11")))
    assert drawn.get_supxlabel() == ""


@pytest.mark.parametrize("form", ["png", "pdf"])
def test_the_same_records_give_the_same_bytes(form: str) -> None:
    def drawn() -> bytes:
        file = io.BytesIO()
        figure(board(outcomes())).savefig(file, format=form, metadata={"CreationDate": None} if form == "pdf" else {})
        return file.getvalue()

    assert drawn() == drawn()


def many(count: int, **identity: Any) -> pd.DataFrame:
    """Zero-shot and that many others in a cloud; the last is on the Pareto front for its novel accuracy alone."""
    recipes = {f"method_{i}": (24 + (7 * i) % 13, 20 + (5 * i) % 11) for i in range(count - 1)}
    some = outcomes({"zero_shot": (20, 20), **recipes, "corner": (21, 36)}, seeds=1, **identity)
    for one in some:
        one["cost"]["trained_parameters"] *= one["cell"]["recipe"] != "zero_shot"
    return board(some)


@pytest.mark.parametrize("count", [MOST + 10, 120])
def test_of_many_recipes_the_front_zero_shot_and_the_best_are_named_beside_their_points(count: int) -> None:
    frame = many(count)
    _, axes = panel(frame)
    names = {label.get_text() for label in labels_of(axes)}
    averages = frame[frame["dataset"] == "average"]
    best = averages.sort_values("h", ascending=False, kind="stable")["recipe"].head(BEST)
    assert {"zero_shot", "corner", *best} <= names
    assert len(names) <= MOST
    legend = axes.get_legend()
    assert legend is not None
    listed = [text.get_text() for text in legend.get_texts()]
    others = set(averages["recipe"]) - names
    assert listed == [f"{len(others)} others"] if len(others) > LEGEND else set(listed) == others


def test_many_recipes_over_the_shots_are_named_for_the_best_and_zero_shot() -> None:
    _, axes = panel(pd.concat([many(60, protocol="few_shot"), many(60, protocol="few_shot", shots=1)]))
    names = [label.get_text() for label in labels_of(axes)]
    assert "zero_shot" in names
    assert len(names) == 1 + BEST


@pytest.mark.parametrize("many_", [False, True])
def test_no_colour_over_the_shots(many_: bool) -> None:
    drawn, _ = panel(many(60, protocol="few_shot") if many_ else board(outcomes(protocol="few_shot")))
    assert_grey(drawn)


def test_names_stand_free_in_every_panel_of_a_figure() -> None:
    """The layout of the first panel still changes while the others are drawn."""
    drawn = figure(pd.concat([many(40), many(40, shots=4)]))
    drawn.canvas.draw()
    for axes in drawn.axes:
        boxes = [label.get_window_extent() for label in labels_of(axes)]
        assert len(boxes) > BEST
        apart_and_inside(axes, boxes)


@settings(max_examples=12, deadline=None)
@given(
    points=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=MOST),
    dots=st.integers(0, 200),
)
def test_labels_never_collide_and_stay_inside(points: list[tuple[float, float]], dots: int) -> None:
    """Also when all points lie on a heap: they are drawn into one tenth of the axes."""
    drawn = Figure(figsize=(5.6, 5.2), dpi=100)
    FigureCanvasAgg(drawn)
    axes = drawn.add_subplot()
    axes.set_xlim(0, 10)
    axes.set_ylim(0, 10)
    heap = [(4.5 + x, 4.5 + y) for x, y in points]
    cloud = [(i % 20 / 2, i / 20) for i in range(dots)]
    labels = place_labels(drawn, [Labels(axes, heap, [f"method_{i}" for i in range(len(heap))], dots=cloud)])
    assert len(labels) == len(points)
    apart_and_inside(axes, [label.get_window_extent() for label in labels])
