"""Accuracy against cost: H over trained parameters (or bytes, or seconds) on a log axis, with the Pareto front.

Readable without colour: points differ by shape and have their name beside them. A line at the height of zero-shot,
which costs nothing and has no place on a log axis, says what has to be beaten.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from clipbench.errors import UnknownName
from clipbench.report.aggregate import IDENTITY, Row, averages_of, grouped, rows_of
from clipbench.report.figures import NOTHING, SHAPES
from clipbench.report.labels import place_labels
from clipbench.report.layout import FROZEN, MINI, is_frozen, measures, title_of

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
    for axes, (identity, rows) in zip(places, panels.items(), strict=True):
        axes.set_title(title_of(identity), fontsize=9)
        draw_costs(axes, rows, x)
    if (frame["suite"] == "mini").any():
        drawn.supxlabel(MINI, fontsize=7, color="0.35")
    return drawn


def canvas(panels: int, points: int) -> tuple[Figure, list[Axes]]:
    """A figure with that many panels, larger where there are many points to name."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(panels, 2)
    lines = math.ceil(panels / columns)
    size = 1.0 if points <= 14 else 1.25
    drawn = Figure(figsize=(7.2 * size * columns, 5.4 * size * lines), dpi=150, layout="constrained")
    FigureCanvasAgg(drawn)
    return drawn, [drawn.add_subplot(lines, columns, index + 1) for index in range(panels)]


def draw_costs(
    axes: Axes,
    averages: Sequence[Row],
    x: str,
    names: Mapping[str, str] | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    joined: Collection[str] = (),
) -> None:
    """Points, zero-shot line and Pareto front of average rows.

    Args:
        axes: empty axes of a figure that can be drawn (Agg).
        averages: one row per recipe, as `aggregate` makes them.
        x: a column of `COST_AXES`.
        names: recipe to the name that is written; its own where it is not in there.
        groups: name to recipes in their order; a recipe that is in one group alone has its shape, and a legend says
            which is which.
        joined: the groups whose recipes a thin line joins, since they are steps of one quantity.

    Raises:
        UnknownName: no such column of cost.
    """
    if x not in COST_AXES:
        raise UnknownName("column of cost", x, COST_AXES)
    column, head = measures(averages)[-1]
    axes.set_xlabel(COST_AXES[x])
    axes.set_ylabel(f"{'H' if column == 'h' else 'accuracy'}, %")
    free = [row for row in averages if row["trained_parameters"] == 0 and not math.isnan(row[column])]
    costly = [row for row in averages if row not in free]
    kept = [row for row in costly if row[x] > 0 and not math.isnan(row[column])]  # false for NaN
    left_out = [row for row in costly if row not in kept]
    if left_out:
        told = textwrap.fill(f"not drawn: {_reasons(left_out, column)}", 120)
        axes.set_title(f"{axes.get_title()}\n{told}", fontsize=8)
    if not kept:
        axes.text(0.5, 0.5, NOTHING, ha="center", transform=axes.transAxes)
        return
    shapes = _shapes(kept, groups)
    points = [
        Point((names or {}).get(row["recipe"], row["recipe"]) + FROZEN * is_frozen(row), float(row[x]),
              float(row[column]), is_frozen(row), shapes[row["recipe"]])
        for row in kept
    ]  # fmt: skip
    lines = [(row["recipe"], float(row[column])) for row in free]
    _limit(axes, points, [value for _, value in lines])
    said = [_floor(axes, (names or {}).get(recipe, recipe), value, head) for recipe, value in lines]
    _front(axes, points, max((value for _, value in lines), default=-math.inf))
    by_recipe = {row["recipe"]: point for row, point in zip(kept, points, strict=True)}
    for number, (name, recipes) in enumerate((groups or {}).items()):
        some = [by_recipe[recipe] for recipe in recipes if recipe in by_recipe]
        if name in joined:
            axes.plot([p.cost for p in some], [p.value for p in some], "-", linewidth=0.9, color="0.6", zorder=2)
        axes.plot([], [], label=name, linestyle="none", **_look(number + 1, False))
    for point in points:
        axes.plot(point.cost, point.value, zorder=3, **_look(point.shape, point.frozen))
    if any(point.frozen for point in points):
        axes.plot([], [], label=FROZEN_NOVEL, linestyle="none", **_look(0, True))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=4, frameon=False)
    place_labels(axes, [(p.cost, p.value) for p in points], [p.name for p in points], size=7.5, avoid=said,
                 directions=ASIDE)  # fmt: skip


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which points nothing beats: no other one costs no more, is no worse, and is better in one of the two.

    Args:
        points: (cost, value); less cost and more value are better.

    Returns:
        Indices by rising cost.
    """
    kept, best = list[int](), -math.inf
    by_cost = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    for index in by_cost:
        cost, value = points[index]
        if value > best or (kept and points[kept[-1]] == (cost, value)):
            kept.append(index)
            best = value
    return kept


def _shapes(rows: Sequence[Row], groups: Mapping[str, Sequence[str]] | None) -> dict[str, int]:
    """The number of each recipe's shape: its own, or that of its group (0 for what is in several, or in none)."""
    if not groups:
        return {row["recipe"]: index for index, row in enumerate(rows)}
    shapes = dict.fromkeys((row["recipe"] for row in rows), 0)
    for recipe in shapes:
        within = [number for number, recipes in enumerate(groups.values()) if recipe in recipes]
        if len(within) == 1:
            shapes[recipe] = within[0] + 1
    return shapes


def _look(shape: int, frozen: bool) -> dict[str, Any]:
    """How a mark of that shape looks."""
    face = "white" if frozen else str(0.15 + 0.5 * (shape % 3) / 2)
    edge = {"markeredgecolor": "black", "markeredgewidth": 1.0, "markersize": 7}
    return {"marker": SHAPES[shape % len(SHAPES)], "markerfacecolor": face, **edge}


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


def _front(axes: Axes, points: Sequence[Point], floor: float) -> None:
    """The steps of what is best at its cost; what zero-shot beats, or answers for, is never on it."""
    able = [point for point in points if not point.frozen]
    best = [index for index in pareto([(p.cost, p.value) for p in able]) if able[index].value > floor]
    if best:
        costs, values = [able[i].cost for i in best], [able[i].value for i in best]
        right = axes.get_xlim()[1]
        axes.plot(
            [*costs, right], [*values, values[-1]], linestyle=(0, (1, 1.5)), linewidth=1.3, color="0.2", zorder=1,
            drawstyle="steps-post", label=FRONT,
        )  # fmt: skip


def _reasons(rows: Sequence[Row], column: str) -> str:
    missing = [row for row in rows if math.isnan(row[column])]
    told = [f"{row['recipe']} ({row['cells']}/{row['cells_expected']} cells)" for row in missing]
    told += [f"{row['recipe']} (unknown cost)" for row in rows if row not in missing]
    return ", ".join(told[:8]) + (f" and {len(told) - 8} more" if len(told) > 8 else "")
