"""Figures of the analysis: changes per layer and over training, and how far features turned; readable in grey.

Depth is told by lightness and line style (dark and solid: nearest the input), parts of a block by the shape of the
mark. Thin bars reach from the smallest to the largest cell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from clipbench.analysis.summary import groups_of, last_rows, placed
from clipbench.report.drawing import new_figure
from clipbench.report.naming import SHAPES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES = ("-", "--", ":", "-.")
LAYERS = {
    "sum_squares": "sum of squared differences",
    "relative": "change / pretrained norm",
    "path_length": "gradient path, sum of lr |g|",
}
TRAINING = {
    "mean_square": "squared difference per number",
    "gradient_cosine": "cosine of successive gradients",
    "gradient_rate": "squared gradient per step",
}
POINTS = np.linspace(0, 1, 41)
LEGEND = 12  # most entries of a legend
WIDE = 30  # largest over smallest value from which an axis is logarithmic


def layers_figure(frame: pd.DataFrame, note: str = "") -> Figure:
    """A row of panels per group of comparable tensors: every quantity at the end of the fit against depth.

    Args:
        frame: rows of changes with a column `cell`.
        note: small text below.
    """
    ends = last_rows(frame)
    groups = _several(ends)
    shown = [name for name in LAYERS if name in ends and ends[name].notna().any()]
    drawn, panels = _grid(len(groups), len(shown), note)
    blocks = int(ends["block"].max()) + 1 if ends["block"].notna().any() else 0
    cells = ends["cell"].nunique()
    for row, group in enumerate(groups):
        for column, quantity in enumerate(shown):
            axes = panels[row][column]
            some = ends[(ends["group"] == group) & ends[quantity].notna()]
            _over_depth(axes, some, quantity, blocks)
            axes.set_title(f"{group}: {LAYERS[quantity]}", fontsize=8)
        panels[row][-1].legend(fontsize=6.5, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    drawn.suptitle(f"Changes by depth at the end of the fit, mean over {cells} cells", fontsize=9)
    return drawn


def _several(ends: pd.DataFrame) -> list[str]:
    """The groups with more than one tensor; all where there is none."""
    counts = ends.groupby("group")["tensor"].nunique()
    groups = groups_of(ends)
    return [group for group in groups if counts[group] > 1] or groups


def _grid(rows: int, columns: int, note: str) -> tuple[Figure, list[list[Axes]]]:
    drawn = new_figure(3.1 * columns + 1.4, 2.1 * rows + 0.7, dpi=130)
    panels = drawn.subplots(rows, columns, squeeze=False)
    for axes in panels.flat:
        axes.tick_params(labelsize=7)
        axes.grid(axis="y", color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.yaxis.get_offset_text().set_fontsize(6.5)
    if note:
        drawn.supxlabel(note, fontsize=6.5, color="0.35")
    return drawn, [list(line) for line in panels]


def _over_depth(axes: Axes, some: pd.DataFrame, quantity: str, blocks: int) -> None:
    """A line per part of a block; what stands outside of the blocks is a mark at either end."""
    means: list[float] = []
    for index, (part, tensors) in enumerate(some.sort_values("depth", kind="stable").groupby("part", sort=False)):
        by_depth = tensors.groupby("depth")[quantity].agg(["mean", "min", "max"])
        name = str(part).removesuffix(".weight").removesuffix(".bias")
        at = [min(depth, blocks) for depth in by_depth.index]
        mean = by_depth["mean"].to_numpy(float)
        reach = [mean - by_depth["min"], by_depth["max"] - mean]
        means += mean.tolist()
        axes.errorbar(
            at, mean, yerr=reach, marker=SHAPES[index % len(SHAPES)], markersize=4.5, linewidth=0.9,
            linestyle=STYLES[index % len(STYLES)], color=str(0.1 + 0.5 * (index % 3) / 2), elinewidth=0.5,
            markerfacecolor=("0.1", "white", "0.6")[index % 3], label=name,
        )  # fmt: skip
    above = [value for value in means if value > 0]
    if above and max(above) > WIDE * min(above):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    step = max(1, blocks // 6)
    ticks = [-1.0, *range(0, blocks, step), blocks]
    axes.set_xticks(ticks, ["pre", *(str(number) for number in range(0, blocks, step)), "post"])
    axes.set_xlim(-1.4, blocks + 0.4)
    axes.set_xlabel("block", fontsize=7)


def training_figure(frame: pd.DataFrame, note: str = "") -> Figure:
    """A row of panels per group: change, cosine of successive gradients and squared gradients over the fit.

    Args:
        frame: rows of changes with steps and a column `cell`; cells of different length meet on the share of the fit.
        note: small text below.
    """
    frame = placed(_with_rate(frame))
    groups = _several(last_rows(frame))
    drawn, panels = _grid(len(groups), len(TRAINING), note)
    for row, group in enumerate(groups):
        some = frame[frame["group"] == group]
        order = some[["tensor", "depth"]].drop_duplicates().sort_values(["depth", "tensor"], kind="stable")
        for column, quantity in enumerate(TRAINING):
            axes = panels[row][column]
            axes.set_title(f"{group}: {TRAINING[quantity]}", fontsize=8)
            for index, tensor in enumerate(order["tensor"]):
                curve = _mean_curve(some[some["tensor"] == tensor], quantity)
                if curve is None:
                    continue
                inside = len(order) <= LEGEND or index % -(-len(order) // LEGEND) == 0
                axes.plot(
                    100 * POINTS, curve, linewidth=1.0, linestyle=STYLES[index % len(STYLES)],
                    color=str(0.75 * index / max(1, len(order) - 1)), marker=SHAPES[index % len(SHAPES)], markersize=3,
                    markevery=(index % 8, 8), label=_short(tensor) if inside else None,
                )  # fmt: skip
            if not axes.lines:  # merged weights
                axes.text(0.5, 0.5, "no gradients of their own", fontsize=7, ha="center", transform=axes.transAxes)
            elif quantity == "gradient_rate":
                axes.set_yscale("log")
            axes.set_xlabel("percent of the steps", fontsize=7)
        panels[row][0].legend(fontsize=5.5, frameon=False)
    drawn.suptitle(f"Changes over training, mean over {frame['cell'].nunique()} cells", fontsize=9)
    return drawn


def _with_rate(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with the squared gradient per step between two records."""
    frame = frame.sort_values(["cell", "tensor", "step"], kind="stable")
    steps = frame.groupby(["cell", "tensor"])["step"].diff()
    return frame.assign(gradient_rate=frame.groupby(["cell", "tensor"])["gradient_squares"].diff() / steps)


def _mean_curve(rows: pd.DataFrame, quantity: str) -> np.ndarray | None:
    """Mean over the cells at common shares of the fit; None where nothing is known."""
    curves = []
    for _, cell in rows[rows[quantity].notna()].groupby("cell"):
        share = (cell["step"] / cell["steps"]).to_numpy(float)
        curves.append(np.interp(POINTS, share, cell[quantity].to_numpy(float)))
    return np.mean(curves, axis=0) if curves else None


def _short(tensor: str) -> str:
    return tensor.partition(".")[2].removeprefix("blocks.").removesuffix(".weight").removesuffix(".bias") or tensor


def features_figure(frame: pd.DataFrame, note: str = "") -> Figure:
    """Two panels, text and image: 1 - cosine to the pretrained features of every dataset and split.

    Args:
        frame: one row per class, see `features.py`.
        note: small text below.
    """
    datasets = list(dict.fromkeys(frame["dataset"]))
    splits = list(dict.fromkeys(frame["split"]))
    drawn, panels = _grid(1, 2, note)
    drawn.set_size_inches(8.2, 1.6 + 0.32 * len(datasets) * max(1, len(splits)) ** 0.5)
    for axes, (quantity, title) in zip(panels[0], (("text_cosine", "text"), ("image_cosine", "image")), strict=True):
        for index, split in enumerate(splits):
            here = frame[frame["split"] == split]
            turned = (1 - here[quantity].astype(float)).clip(lower=0)
            by_dataset = turned.groupby(here["dataset"]).agg(["mean", "min", "max"]).reindex(datasets)
            place = np.arange(len(datasets)) + 0.26 * (index - (len(splits) - 1) / 2)
            mean = by_dataset["mean"].to_numpy(float)
            reach = [mean - by_dataset["min"], by_dataset["max"] - mean]
            axes.errorbar(
                mean, place, xerr=reach, linestyle="none", elinewidth=0.5,
                marker=SHAPES[index % len(SHAPES)], markersize=4.5, color="0.1",
                markerfacecolor=("0.1", "white", "0.6")[index % 3], label=split,
            )  # fmt: skip
        axes.set_yticks(range(len(datasets)), datasets if axes is panels[0][0] else [""] * len(datasets))
        axes.invert_yaxis()
        axes.grid(axis="x", color="0.9", linewidth=0.6)
        axes.set_xscale("symlog", linthresh=1e-6)
        most = (1 - frame[quantity].astype(float).fillna(1)).max()
        axes.set_xlim(0, 10 ** np.ceil(np.log10(max(float(most), 1e-5))))
        axes.set_title(f"{title} features: 1 - cosine to the pretrained ones", fontsize=8)
    panels[0][1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return drawn
