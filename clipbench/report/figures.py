"""The leaderboard as one picture: base against novel accuracy with curves of equal H, or accuracy against shots.

Readable without colour: recipes differ by the shape of their mark; those that no other beats in both accuracies, and
the best few, have their name beside it.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from typing import TYPE_CHECKING

import pandas as pd

from clipbench.report.aggregate import IDENTITY, averages_of, grouped, label_of, rows_of
from clipbench.report.cells import Row
from clipbench.report.drawing import new_figure
from clipbench.report.escaping import figure_text
from clipbench.report.harmonic import harmonic_mean
from clipbench.report.labels import Labels, place_labels
from clipbench.report.layout import FROZEN, MINI, NOTHING, is_frozen, left_out, measures, title_of
from clipbench.report.naming import SHADES, choose_names, dot, legend_lines, mark, pareto

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

LEGEND_COLUMNS = 3
RIGHT = (0, 12, 348, 24, 336, 40, 320, 55, 305, 70, 290)
"""Where a name goes, in degrees, at the end of a line."""


def figure(frame: pd.DataFrame) -> Figure:
    """One panel for each suite, backbone, protocol and setting (and shots, where base and novel are shown).

    Args:
        frame: the leaderboard.

    Returns:
        A matplotlib figure that belongs to no window.
    """
    averages = averages_of(rows_of(frame))
    panels: list[tuple[tuple, list[Row]]] = []
    for general, some in grouped(averages, IDENTITY[:4]).items():
        if len(measures(some)) == 1:
            panels.append(((*general, None), some))
        else:
            panels += grouped(some, IDENTITY[:5]).items()
    columns = min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    most = max(len(grouped(some, ["recipe", "variant"])) for _, some in panels)
    drawn = new_figure(5.6 * columns, (5.2 + 0.16 * legend_lines(most, LEGEND_COLUMNS)) * rows)
    if (frame["suite"] == "mini").any():
        drawn.supxlabel(MINI.replace("playground: ", "playground:\n"), fontsize=7, color="0.35")
    names = []
    for index, (identity, group) in enumerate(panels):
        axes = drawn.add_subplot(rows, columns, index + 1)
        axes.set_title(
            figure_text(title_of(identity).rpartition(",")[0] if identity[3] == "paper" else title_of(identity)),
            fontsize=9,
        )
        names += (_by_shots if identity[4] is None else _base_novel)(axes, group)
    place_labels(drawn, names)
    return drawn


def _base_novel(axes: Axes, averages: list[Row]) -> list[Labels]:
    """A mark per recipe that has all its cells; dashed curves join points of equal H."""
    whole = [row for row in averages if not math.isnan(row["h"])]
    axes.set_xlabel("base accuracy, %")
    axes.set_ylabel("novel accuracy, %")
    if absent := [row for row in averages if math.isnan(row["h"])]:
        title = textwrap.fill(figure_text(f"not drawn: {left_out(absent, 'h')}"), 90)
        axes.set_title(f"{axes.get_title()}\n{title}", fontsize=8)
    if not whole:
        axes.text(0.5, 0.5, NOTHING, ha="center", transform=axes.transAxes)
        return []
    points = [(float(row["base"]), float(row["novel"])) for row in whole]
    axes.set_xlim(*_limits([base for base, _ in points]))
    axes.set_ylim(*_limits([novel for _, novel in points]))
    curves = _iso_h(axes)
    able = [index for index, row in enumerate(whole) if not is_frozen(row)]
    naming = choose_names(
        [row["h"] for row in whole],
        front=[able[i] for i in pareto([(-points[index][0], points[index][1]) for index in able])],
        first=[index for index, row in enumerate(whole) if row["trained_parameters"] == 0],
        unranked=[index for index in range(len(whole)) if index not in able],
    )
    texts = [figure_text(label_of(row) + FROZEN * is_frozen(row)) for row in whole]
    for index in sorted(naming.beside + naming.listed):
        label = texts[index] if index in naming.listed else None
        axes.plot(*points[index], label=label, zorder=3, **mark(index, is_frozen(whole[index])))
    beside, marks, dots = ([points[i] for i in some] for some in naming)
    if dots:
        axes.plot(*zip(*dots, strict=True), label=f"{len(dots)} others", zorder=2.5, **dot())
    _legend(axes)
    return [Labels(axes, beside, [texts[i] for i in naming.beside], avoid=curves, marks=marks, dots=dots)]


def _legend(axes: Axes) -> None:
    """What has no name beside it, below the axes."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=LEGEND_COLUMNS, frameon=False)


def _limits(values: list[float]) -> tuple[float, float]:
    """Room around the points, at least six points of accuracy wide, inside 0 to 100."""
    low, high = min(values), max(values)
    room = max(0.18 * (high - low), (6 - (high - low)) / 2, 0.5)
    return max(0.0, low - room), min(100.5, high + room)


def _iso_h(axes: Axes) -> list[Text]:
    """Curves of equal H, novel = H * base / (2 * base - H), each with its value near its lower end."""
    import numpy as np

    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    first, last = harmonic_mean(left, low), harmonic_mean(right, high)
    step = next((s for s in (0.5, 1, 2, 5, 10) if (last - first) / s <= 9), 20)
    values = []
    for h in np.arange(math.ceil(first / step) * step, last, step):
        base = np.linspace(max(left, h / 2 + 1e-6), right, 2000)
        novel = h * base / (2 * base - h)
        inside = np.flatnonzero((novel >= low) & (novel <= high))
        if len(inside) < 2:
            continue
        axes.plot(base[inside], novel[inside], linestyle=(0, (4, 4)), linewidth=0.7, color="0.72", zorder=1)
        clear = (base[inside] < right - 0.06 * (right - left)) & (novel[inside] > low + 0.03 * (high - low))
        across, up = np.ptp(base[inside]) / (right - left), np.ptp(novel[inside]) / (high - low)
        if math.hypot(across, up) < 0.15 or not clear.any():
            continue  # a corner that is too short for its value
        at = inside[np.flatnonzero(clear)[-1]]
        white = {"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none"}
        values.append(
            axes.text(base[at], novel[at], f"H {h:g}", fontsize=6.5, color="0.45", ha="center", va="center", bbox=white)
        )
    return values


def _by_shots(axes: Axes, averages: list[Row]) -> list[Labels]:
    """A line per recipe over the shots; the spread over seeds as bars."""
    whole = sorted((row for row in averages if not math.isnan(row["accuracy"])), key=lambda row: row["shots"])
    axes.set_xlabel("shots per class")
    axes.set_ylabel("accuracy, %")
    if not whole:
        axes.text(0.5, 0.5, NOTHING, ha="center", transform=axes.transAxes)
        return []
    shots = sorted({row["shots"] for row in whole})
    axes.set_xticks(range(len(shots)), [str(s) for s in shots])
    axes.set_xlim(-0.4, len(shots) - 0.4 + 0.25 * len(shots))
    axes.set_ylim(*_limits([row["accuracy"] for row in whole]))
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    curves = {figure_text(label_of(rows[0])): [(shots.index(row["shots"]), row) for row in rows]
              for rows in grouped(whole, ["recipe", "variant"]).values()}  # fmt: skip
    recipes = list(curves)
    ends = [(float(place), float(row["accuracy"])) for place, row in (curve[-1] for curve in curves.values())]
    naming = choose_names(
        [value for _, value in ends], front=(),
        first=[index for index, curve in enumerate(curves.values()) if curve[-1][1]["trained_parameters"] == 0],
    )  # fmt: skip
    for index in sorted(naming.beside + naming.listed):
        curve = curves[recipes[index]]
        spreads = [0.0 if math.isnan(row["accuracy_std"]) else row["accuracy_std"] for _, row in curve]
        axes.errorbar(
            [place for place, _ in curve], [row["accuracy"] for _, row in curve], yerr=spreads, capsize=3, linewidth=1,
            color=SHADES[index % len(SHADES)], label=recipes[index] if index in naming.listed else None,
            **mark(index) | {"linestyle": "-", "markersize": 6},
        )  # fmt: skip
    if naming.nameless:
        others = [[(place, row["accuracy"]) for place, row in curves[recipes[i]]] for i in naming.nameless]
        xs, ys = zip(*itertools.chain.from_iterable([*curve, (math.nan, math.nan)] for curve in others), strict=True)
        thin = {"linestyle": "-", "linewidth": 0.3, "color": "0.8", "markersize": 2, "zorder": 1}
        axes.plot(xs, ys, label=f"{len(others)} others", **dot() | thin)
    _legend(axes)
    beside, marks, dots = ([ends[i] for i in some] for some in naming)
    names = [recipes[i] for i in naming.beside]
    return [Labels(axes, beside, names, marks=marks, dots=dots, directions=RIGHT)]
