"""The leaderboard as one picture: base against novel accuracy with curves of equal H, or accuracy against shots.

Readable without colour: recipes differ by the shape of their mark and have their name beside it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd

from clipbench.report.aggregate import IDENTITY, Row, averages_of, grouped, rows_of
from clipbench.report.harmonic import harmonic_mean
from clipbench.report.labels import place_labels
from clipbench.report.layout import FROZEN, MINI, is_frozen, measures, title_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

SHAPES = "osD^vP*Xh<>dp8"
NOTHING = "no recipe has all its cells: nothing to draw yet"


def figure(frame: pd.DataFrame) -> Figure:
    """One panel for each suite, backbone, protocol and setting (and shots, where base and novel are shown).

    Args:
        frame: the leaderboard.

    Returns:
        A matplotlib figure that belongs to no window.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    averages = averages_of(rows_of(frame))
    panels: list[tuple[tuple, list[Row]]] = []
    for general, some in grouped(averages, IDENTITY[:4]).items():
        if len(measures(some)) == 1:
            panels.append(((*general, None), some))
        else:
            panels += grouped(some, IDENTITY[:5]).items()
    columns = min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    drawn = Figure(figsize=(5.6 * columns, 5.2 * rows), dpi=150, layout="constrained")
    FigureCanvasAgg(drawn)
    for index, (identity, group) in enumerate(panels):
        axes = drawn.add_subplot(rows, columns, index + 1)
        axes.set_title(
            title_of(identity).rpartition(",")[0] if identity[3] == "paper" else title_of(identity), fontsize=9
        )
        (_by_shots if identity[4] is None else _base_novel)(axes, group)
    if (frame["suite"] == "mini").any():
        drawn.supxlabel(MINI.replace("playground: ", "playground:\n"), fontsize=7, color="0.35")
    return drawn


def _base_novel(axes: Axes, averages: list[Row]) -> None:
    """A mark per recipe that has all its cells; dashed curves join points of equal H."""
    whole = [row for row in averages if not math.isnan(row["h"])]
    left_out = [f"{row['recipe']} {row['cells']}/{row['cells_expected']}" for row in averages if row not in whole]
    axes.set_xlabel("base accuracy, %")
    axes.set_ylabel("novel accuracy, %")
    if left_out:
        axes.set_title(f"{axes.get_title()}\nnot drawn, cells are missing: {', '.join(left_out)}", fontsize=8)
    if not whole:
        axes.text(0.5, 0.5, NOTHING, ha="center", transform=axes.transAxes)
        return
    axes.set_xlim(*_limits([row["base"] for row in whole]))
    axes.set_ylim(*_limits([row["novel"] for row in whole]))
    curves = _iso_h(axes)
    for index, row in enumerate(whole):
        axes.plot(
            row["base"], row["novel"], SHAPES[index % len(SHAPES)], markersize=7, zorder=3, markeredgecolor="black",
            markeredgewidth=1.0, markerfacecolor="white" if is_frozen(row) else str(0.15 + 0.5 * (index % 3) / 2),
        )  # fmt: skip
    names = [row["recipe"] + FROZEN * is_frozen(row) for row in whole]
    place_labels(axes, [(row["base"], row["novel"]) for row in whole], names, avoid=curves)


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


def _by_shots(axes: Axes, averages: list[Row]) -> None:
    """A line per recipe over the shots; the spread over seeds as bars."""
    whole = sorted((row for row in averages if not math.isnan(row["base"])), key=lambda row: row["shots"])
    axes.set_xlabel("shots per class")
    axes.set_ylabel("accuracy, %")
    if not whole:
        axes.text(0.5, 0.5, NOTHING, ha="center", transform=axes.transAxes)
        return
    shots = sorted({row["shots"] for row in whole})
    ends, names = [], []
    for index, ((recipe,), rows) in enumerate(grouped(whole, ["recipe"]).items()):
        spreads = [0.0 if math.isnan(row["base_std"]) else row["base_std"] for row in rows]
        axes.errorbar(
            [shots.index(row["shots"]) for row in rows], [row["base"] for row in rows], yerr=spreads, capsize=3,
            marker=SHAPES[index % len(SHAPES)], markersize=6, linewidth=1, color=str(0.15 + 0.45 * (index % 3) / 2),
        )  # fmt: skip
        ends.append((float(shots.index(rows[-1]["shots"])), float(rows[-1]["base"])))
        names.append(recipe)
    axes.set_xticks(range(len(shots)), [str(s) for s in shots])
    axes.set_xlim(-0.4, len(shots) - 0.4 + 0.25 * len(shots))
    axes.set_ylim(*_limits([row["base"] for row in whole]))
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    place_labels(axes, ends, names, directions=(0, 12, 348, 24, 336, 40, 320, 55, 305, 70, 290))
