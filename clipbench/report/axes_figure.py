"""The axes of a study as one picture: a panel each, base, novel and H over the values of what was varied."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from clipbench.report.cells import Row
from clipbench.report.drawing import new_figure
from clipbench.report.escaping import figure_text
from clipbench.report.layout import measures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES = {"base": ("^", "0.6", "--"), "novel": ("v", "0.6", ":"), "h": ("o", "0.1", "-")}


class Panel(NamedTuple):
    """One axis: its name, the values in order, the recipe at each, the default, whether values are steps."""

    name: str
    values: Sequence[str]
    recipes: Sequence[str]
    centre: str
    numeric: bool


def accuracy_over_axes(panels: Sequence[Panel], averages: Mapping[str, Row], title: str, zero_shot: str = "") -> Figure:
    """A panel per axis on one common scale; what has no average yet is left out of its line.

    Args:
        panels: the axes.
        averages: recipe to its average row.
        title: above all panels.
        zero_shot: the recipe whose H is drawn as a line across.
    """
    columns = min(len(panels), 3)
    lines = math.ceil(len(panels) / columns)
    drawn = new_figure(4.6 * columns, 3.6 * lines + 0.5)
    drawn.suptitle(title, fontsize=9)
    shown = measures(list(averages.values()))
    first: Axes | None = None
    for index, panel in enumerate(panels):
        axes = drawn.add_subplot(lines, columns, index + 1, sharey=first)
        first = first or axes
        _draw(axes, panel, averages, shown)
        floor = averages[zero_shot][shown[-1][0]] if zero_shot in averages else math.nan
        if not math.isnan(floor):
            axes.axhline(floor, linestyle=(0, (5, 4)), linewidth=0.8, color="0.45", label=f"zero-shot {shown[-1][1]}")
    if first is not None:
        handles, labels = first.get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    return drawn


def _draw(axes: Axes, panel: Panel, averages: Mapping[str, Row], shown: Sequence[tuple[str, str]]) -> None:
    """The measures of one axis; a grey band behind the default."""
    places = range(len(panel.values))
    axes.set_title(figure_text(panel.name), fontsize=9)
    axes.grid(axis="y", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    for place in places:
        if panel.recipes[place] == panel.centre:
            axes.axvspan(place - 0.3, place + 0.3, color="0.9", zorder=0, label="default")
    for column, head in shown:
        marker, grey, line = STYLES["h" if len(shown) == 1 else column]
        heights = [float(averages.get(recipe, {}).get(column, math.nan)) for recipe in panel.recipes]
        line = line if panel.numeric else "none"
        axes.plot(places, heights, linestyle=line, marker=marker, color=grey, markersize=5, linewidth=1, label=head)
    long = max(map(len, panel.values)) * len(panel.values) > 36
    axes.set_xticks(
        places, list(map(figure_text, panel.values)), rotation=30 if long else 0, ha="right" if long else "center",
        fontsize=8, rotation_mode="anchor",
    )  # fmt: skip
    axes.set_xlim(-0.5, len(panel.values) - 0.5)
    axes.set_ylabel("accuracy, %", fontsize=8)
    axes.tick_params(axis="y", labelsize=8)
