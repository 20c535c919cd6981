"""Accuracy against cost: H over trained parameters (or bytes, or seconds) on a log axis, with the Pareto front.

Readable without colour: points differ by shape; those of the front and the best few have their name beside them. A
line at the height of zero-shot, which costs nothing and has no place on a log axis, says what has to be beaten.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from clipbench.errors import UnknownName
from clipbench.report.aggregate import IDENTITY, averages_of, grouped, label_of, rows_of
from clipbench.report.cells import Row
from clipbench.report.drawing import new_figure
from clipbench.report.escaping import figure_text
from clipbench.report.labels import Labels, place_labels
from clipbench.report.layout import FROZEN, MINI, NOTHING, is_frozen, left_out, measures, title_of
from clipbench.report.naming import Naming, choose_names, dot, legend_lines, mark, pareto

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

COST_AXES = {
    "trained_parameters": "trained parameters",
    "trained_parameters_end": "parameters still trained in the last step",
    "share": "trained share of the backbone, %",
    "stored_bytes": "stored bytes of what was learned",
    "seconds_per_step": "seconds per training step",
    "train_seconds": "seconds of the fit",
    "peak_bytes": "peak memory in bytes",
}
"""Columns of a leaderboard that can be the x axis, with what is written below it."""
FRONT = "Pareto front"
FROZEN_NOVEL = f"{FROZEN} answers zero-shot on novel classes, not ranked"
ASIDE = (60, 120, 300, 240, 0, 180, 90, 270, 30, 150, 330, 210)
"""Where a name goes, in degrees: off the level steps of the front first."""
LEGEND_COLUMNS = 4
UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


class Point(NamedTuple):
    """One mark: its name, cost, accuracy, whether its novel rule is frozen, and its shape by number."""

    name: str
    cost: float
    value: float
    frozen: bool
    shape: int


def accuracy_vs_cost(frame: pd.DataFrame, x: str = "trained_parameters") -> Figure:
    """One panel for each suite, backbone, protocol, setting and shots; a point per recipe that has all its cells.

    Args:
        frame: the leaderboard.
        x: a column of `COST_AXES`.

    Returns:
        A matplotlib figure that belongs to no window.

    Raises:
        UnknownName: no such column of cost.
    """
    panels = grouped(averages_of(rows_of(frame)), IDENTITY[:5])
    drawn, places = canvas(len(panels), max(len(rows) for rows in panels.values()))
    if (frame["suite"] == "mini").any():
        drawn.supxlabel(MINI, fontsize=7, color="0.35")
    names = []
    for axes, (identity, rows) in zip(places, panels.items(), strict=True):
        axes.set_title(figure_text(title_of(identity)), fontsize=9)
        names += draw_costs(axes, rows, x)
    place_labels(drawn, names)
    return drawn


def canvas(panels: int, points: int) -> tuple[Figure, list[Axes]]:
    """A figure with that many panels, larger where there are many points to name."""
    columns = min(panels, 2)
    lines = math.ceil(panels / columns)
    size = 1.0 if points <= 14 else 1.25
    drawn = new_figure(7.2 * size * columns, (5.4 * size + 0.14 * legend_lines(points, LEGEND_COLUMNS)) * lines)
    return drawn, [drawn.add_subplot(lines, columns, index + 1) for index in range(panels)]


def draw_costs(
    axes: Axes,
    averages: Sequence[Row],
    x: str,
    names: Mapping[str, str] | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    joined: Collection[str] = (),
) -> list[Labels]:
    """Points, zero-shot line and Pareto front of average rows; the names beside points are returned, to be placed last.

    Args:
        axes: empty axes of a figure that can be drawn (Agg).
        averages: one row per recipe, as `aggregate` makes them.
        x: a column of `COST_AXES`.
        names: recipe to the name that is written; its own where it is not in there.
        groups: name to recipes in their order; a recipe that is in one group alone has its shape, and a legend says
            which is which.
        joined: the groups whose recipes a thin line joins, since they are steps of one quantity.

    Returns:
        For `place_labels`; empty where there is no point.

    Raises:
        UnknownName: no such column of cost.
    """
    if x not in COST_AXES:
        raise UnknownName("column of cost", x, COST_AXES)
    column, head = measures(averages)[-1]
    axes.set_xlabel(COST_AXES[x])
    axes.set_ylabel(f"{'H' if column == 'h' else 'accuracy'}, %")
    free, kept, absent = list[Row](), list[Row](), list[Row]()
    for row in averages:
        known = not math.isnan(row[column])
        some = free if known and row["trained_parameters"] == 0 else kept if known and row[x] > 0 else absent
        some.append(row)
    if absent:
        title = textwrap.fill(figure_text(f"not drawn: {left_out(absent, column)}"), 120)
        axes.set_title(f"{axes.get_title()}\n{title}", fontsize=8)
    if not kept:
        axes.text(0.5, 0.5, NOTHING, ha="center", transform=axes.transAxes)
        return []
    shapes = _shapes(kept, groups)
    points = [
        Point(figure_text((names or {}).get(row["recipe"], label_of(row)) + FROZEN * is_frozen(row)), float(row[x]),
              float(row[column]), is_frozen(row), shapes[label_of(row)])
        for row in kept
    ]  # fmt: skip
    lines = [(label_of(row), float(row[column])) for row in free]
    _limit(axes, points, [value for _, value in lines])
    floors = [_floor(axes, figure_text((names or {}).get(recipe, recipe)), value, head) for recipe, value in lines]
    front = _front(axes, points, max((value for _, value in lines), default=-math.inf))
    by_recipe = {label_of(row): point for row, point in zip(kept, points, strict=True)}
    for number, (name, recipes) in enumerate((groups or {}).items()):
        steps = [by_recipe[recipe] for recipe in recipes if recipe in by_recipe]
        if name in joined:
            axes.plot([p.cost for p in steps], [p.value for p in steps], "-", linewidth=0.9, color="0.6", zorder=2)
        axes.plot([], [], label=figure_text(name), **mark(number + 1))
    naming = choose_names(
        [point.value for point in points], front, unranked=[i for i, point in enumerate(points) if point.frozen]
    )
    _draw_points(axes, points, naming, listed=not groups)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=LEGEND_COLUMNS, frameon=False)
    beside, others, nameless = ([points[i] for i in some] for some in naming)
    return [
        Labels(
            axes, _places(beside), [point.name for point in beside], size=7.5, avoid=floors, marks=_places(others),
            dots=_places(nameless), directions=ASIDE,
        )
    ]  # fmt: skip


def _places(points: Sequence[Point]) -> list[tuple[float, float]]:
    return [(point.cost, point.value) for point in points]


def _draw_points(axes: Axes, points: Sequence[Point], naming: Naming, listed: bool) -> None:
    """The marks; with `listed`, those whose names do not stand beside them enter the legend."""
    for index in sorted(naming.beside + naming.listed):
        point = points[index]
        label = point.name if listed and index in naming.listed else None
        axes.plot(point.cost, point.value, label=label, zorder=3, **mark(point.shape, point.frozen))
    if naming.nameless:
        costs, values = zip(*_places([points[i] for i in naming.nameless]), strict=True)
        axes.plot(costs, values, label=f"{len(naming.nameless)} others", zorder=2.5, **dot())
    if any(points[index].frozen for index in naming.beside + naming.listed):
        axes.plot([], [], label=FROZEN_NOVEL, **mark(0, True))


def _shapes(rows: Sequence[Row], groups: Mapping[str, Sequence[str]] | None) -> dict[str, int]:
    """The number of each recipe's shape: its own, or that of its group (0 for what is in several, or in none)."""
    if not groups:
        return {label_of(row): index for index, row in enumerate(rows)}
    shapes = dict.fromkeys(map(label_of, rows), 0)
    for recipe in shapes:
        within = [number for number, recipes in enumerate(groups.values()) if recipe in recipes]
        if len(within) == 1:
            shapes[recipe] = within[0] + 1
    return shapes


def _limit(axes: Axes, points: Sequence[Point], others: Sequence[float]) -> None:
    """A log axis with room for names, and heights at least four points of accuracy apart."""
    axes.set_xscale("log")
    low, high = (math.log10(bound(point.cost for point in points)) for bound in (min, max))
    room = max(0.12 * (high - low), 0.25)
    axes.set_xlim(10 ** (low - room), 10 ** (high + room))
    values = [*(point.value for point in points), *others]
    bottom, top = min(values), max(values)
    room = max(0.12 * (top - bottom), (4 - (top - bottom)) / 2, 0.4)
    axes.set_ylim(max(0.0, bottom - room), min(100.5, top + room))
    axes.grid(axis="y", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    narrow = high - low < 1.5
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,), numticks=20))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))


def short_number(value: float) -> str:
    """`20 k` for 20000, and 0.05 as it is: a share has no milli."""
    size, unit = next(((size, unit) for size, unit in UNITS if value >= 0.999 * size), UNITS[-1])
    return f"{value / size:.3g} {unit}".strip()


def _floor(axes: Axes, name: str, value: float, head: str) -> Annotation:
    """The line of a recipe that trains nothing, with its name and value at the left."""
    axes.axhline(value, linestyle=(0, (5, 4)), linewidth=0.9, color="0.45", zorder=1)
    return axes.annotate(
        f"{name}, {head} {value:.2f}", (0.0, value), (4, 2), xycoords=("axes fraction", "data"),
        textcoords="offset points", fontsize=7, color="0.35",
    )  # fmt: skip


def _front(axes: Axes, points: Sequence[Point], floor: float) -> list[int]:
    """The steps of what is best at its cost, and its indices; what zero-shot beats, or answers for, is never on it."""
    able = [index for index, point in enumerate(points) if not point.frozen]
    best = [able[i] for i in pareto(_places([points[i] for i in able])) if points[able[i]].value > floor]
    if best:
        costs, values = [points[i].cost for i in best], [points[i].value for i in best]
        right = axes.get_xlim()[1]
        axes.plot(
            [*costs, right], [*values, values[-1]], linestyle=(0, (1, 1.5)), linewidth=1.3, color="0.2", zorder=1,
            drawstyle="steps-post", label=FRONT,
        )  # fmt: skip
    return best
