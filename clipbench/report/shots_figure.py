"""Learning curves: accuracy over the number of shots, a line per recipe, a panel per dataset and one for the average.

Readable without colour: recipes differ by the shape of their mark and by their line; the bars are the sample standard
deviation over seeds.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd

from clipbench.report.aggregate import AVERAGE
from clipbench.report.drawing import new_figure
from clipbench.report.escaping import figure_text
from clipbench.report.layout import MINI, NOTHING, heads_of, is_counted, left_out, title_of
from clipbench.report.naming import LEGEND, MOST, SHADES, SHAPES, mark
from clipbench.report.shots_tables import Series, series_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "learning_curves"
COLUMNS = 4
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)))
NAMED = MOST + LEGEND  # more lines than that have no look of their own, and no name


def learning_curves(frame: pd.DataFrame) -> Figure | None:
    """The figure of all that was computed at several numbers of shots, or None where nothing was.

    Args:
        frame: the leaderboard.
    """
    panels = [
        (series, dataset, head)
        for series in series_of(frame)
        for dataset, head in zip(series.datasets, heads_of(series.rows, series.datasets), strict=True)
    ]
    if not panels:
        return None
    names = max(len(series.recipes) for series, _, _ in panels)
    columns = min(len(panels), COLUMNS)
    rows = math.ceil(len(panels) / columns)
    drawn = new_figure(3.4 * columns, 2.8 * rows + 0.5 + 0.17 * math.ceil(min(names, NAMED) / (2 * columns)))
    looks: dict[str, int] = {}
    for series, _, _ in panels:
        for recipe in series.recipes:
            looks.setdefault(recipe, len(looks))
    several = len({series.identity for series, _, _ in panels}) > 1
    for index, (series, dataset, head) in enumerate(panels):
        axes = drawn.add_subplot(rows, columns, index + 1)
        counted = {row["dataset"] for row in series.rows if is_counted(row)}
        title = f"average over {len(counted)} datasets" if dataset == AVERAGE else head
        axes.set_title(figure_text(f"{title}\n{title_of((*series.identity, None))}" if several else title), fontsize=8)
        _draw(axes, series, dataset, looks)
    above = [] if several else [figure_text(title_of((*panels[0][0].identity, None)))]
    above += [MINI] if (frame["suite"] == "mini").any() else []
    drawn.suptitle("\n".join(above), fontsize=8)
    handles = {
        name: handle for axes in drawn.axes for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if handles:
        shown = [name for name in map(figure_text, looks) if name in handles]
        drawn.legend([handles[name] for name in shown], shown, loc="outside lower center", ncols=2 * columns,
                     fontsize=7, frameon=False)  # fmt: skip
    return drawn


def _draw(axes: Axes, series: Series, dataset: str, looks: dict[str, int]) -> None:
    """The lines of one panel; what has no mean yet is left out of its line."""
    axes.set_xticks(range(len(series.shots)), list(map(str, series.shots)))
    axes.set_xlim(-0.3, len(series.shots) - 0.7)
    axes.set_xlabel("shots per class", fontsize=8)
    axes.set_ylabel(f"{'H' if series.column == 'h' else 'accuracy'}, %", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    rows = {recipe: [series.row(recipe, shots, dataset) for shots in series.shots] for recipe in series.recipes}
    absent = [row for own in rows.values() for row in own if row["cells_expected"] and math.isnan(row[series.column])]
    if absent and dataset == AVERAGE:
        axes.set_title(f"{axes.get_title()}\n{figure_text(f'not drawn: {left_out(absent, series.column)}')}",
                       fontsize=7, wrap=True)  # fmt: skip
    if all(math.isnan(row[series.column]) for own in rows.values() for row in own):
        axes.text(0.5, 0.5, NOTHING, ha="center", transform=axes.transAxes, fontsize=7, wrap=True)
        return
    for recipe, own in reversed(rows.items()):  # the best on top
        values = [float(row[series.column]) for row in own]
        spreads = [float(row.get(f"{series.column}_std", math.nan)) for row in own]
        index = looks[recipe]
        if index >= NAMED:
            axes.plot(range(len(values)), values, color="0.85", linewidth=0.5, zorder=1)
            continue
        dashes = DASHES[index // len(SHAPES) % len(DASHES)]
        axes.errorbar(
            range(len(values)), values, yerr=[0.0 if math.isnan(one) else one for one in spreads],
            label=figure_text(recipe), color=SHADES[index % len(SHADES)], capsize=2, elinewidth=0.7,
            **mark(index) | {"linestyle": dashes, "linewidth": 1, "markersize": 4.5},
        )  # fmt: skip
