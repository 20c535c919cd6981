"""What FisherFreezing froze as one picture: the share still trained over the run, and when each group was frozen.

    clipbench analyze freezing --record RECORD

Readable without colour: the longer a group was trained the darker its cell, and the step it was frozen at stands in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipbench.errors import RecordError
from clipbench.records.store import read_record
from clipbench.report.drawing import new_figure, save_figure
from clipbench.report.escaping import figure_text
from clipbench.schemas import first_fault

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCHEMA_FILE = Path(__file__).with_name("freezing.schema.json")
TOWERS = {"image": "image tower", "text": "text tower", None: "elsewhere"}
OUTSIDE = "outside"
STAYED = "•"


def freezing_figure(facts: Mapping[str, Any], title: str = "") -> Figure:
    """The picture of one fit.

    Args:
        facts: `diagnostics.fisher_freezing` of a record.
        title: above all.

    Returns:
        A matplotlib figure that belongs to no window.
    """
    towers = [tower for tower in TOWERS if any(group["tower"] == tower for group in facts["groups"])]
    grids = {tower: _grid([group for group in facts["groups"] if group["tower"] == tower]) for tower in towers}
    columns = [max(2, len(_columns(grid))) for grid in grids.values()]
    lines = max(len(_rows(grid)) for grid in grids.values())
    wide = max(6.4, 1.7 * len(towers) + 0.42 * sum(columns))
    drawn = new_figure(wide, 2.9 + 0.24 * lines)
    halves: Any = drawn.subfigures(2, 1, height_ratios=(2.1, 0.9 + 0.24 * lines))
    above, below = halves
    drawn.suptitle(title or f"FisherFreezing, {facts['mode']}", fontsize=9)
    _draw_share(above.add_subplot(), facts)
    panels = below.subplots(1, len(grids), width_ratios=columns, squeeze=False)[0]
    for axes, (tower, grid) in zip(panels, grids.items(), strict=True):
        _draw_grid(axes, grid, facts["steps"])
        axes.set_title(TOWERS[tower], fontsize=8)
    below.supxlabel(f"steps done when a group was frozen; {STAYED} stayed; the darker, the longer trained", fontsize=8)
    return drawn


def _draw_share(axes: Axes, facts: Mapping[str, Any]) -> None:
    """Percent of entries and of groups that are trained, over the steps."""
    groups = len(facts["groups"])
    at = [entry["step"] for entry in facts["active"]]
    for key, whole, style, shade in (("entries", facts["entries"], "-", "0.0"), ("groups", groups, "--", "0.45")):
        share = [100 * entry[key] / max(1, whole) for entry in facts["active"]]
        shown = f"{key}: {whole:,}, at the end {facts['active'][-1][key]:,} ({share[-1]:.2g} %)"
        axes.step(at, share, where="post", linestyle=style, linewidth=1.4, color=shade, label=shown)
    axes.set_xlim(0, facts["steps"])
    axes.set_ylim(0, 105)
    axes.set_xlabel("steps done", fontsize=8)
    axes.set_ylabel("still trained, %", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(fontsize=7, frameon=False, loc="upper right")


Grid = dict[tuple[str, str], list[Mapping[str, Any]]]


def _grid(groups: Sequence[Mapping[str, Any]]) -> Grid:
    """Groups by kind and block; slices of one tensor share a cell."""
    grid: Grid = {}
    for group in groups:
        block = OUTSIDE if group["block"] is None else str(group["block"])
        grid.setdefault((group["kind"], block), []).append(group)
    return grid


def _columns(grid: Grid) -> list[str]:
    blocks = {block for _, block in grid}
    return sorted(blocks - {OUTSIDE}, key=int) + [OUTSIDE] * (OUTSIDE in blocks)


def _rows(grid: Grid) -> list[str]:
    """Kinds of the blocks in the order of a block, then those outside."""
    inside = [kind for kind, block in grid if block != OUTSIDE]
    return list(dict.fromkeys(inside + [kind for kind, _ in grid]))


def _draw_grid(axes: Axes, grid: Grid, steps: int) -> None:
    import numpy as np

    rows, columns = _rows(grid), _columns(grid)
    shares = np.full((len(rows), len(columns)), np.nan)
    for (kind, block), groups in grid.items():
        y, x = rows.index(kind), columns.index(block)
        ends = [steps if group["frozen_at"] is None else group["frozen_at"] for group in groups]
        sizes = [group["size"] for group in groups]
        shares[y, x] = np.average(ends, weights=sizes) / steps
        stayed = sum(group["frozen_at"] is None for group in groups)
        text = STAYED if stayed == len(groups) else str(max(group["frozen_at"] or 0 for group in groups))
        if 0 < stayed < len(groups):
            text = f"{STAYED} {stayed}/{len(groups)}"
        axes.text(x, y, text, ha="center", va="center", fontsize=6, color="white" if shares[y, x] > 0.55 else "black")
    axes.imshow(shares, cmap="Greys", vmin=0, vmax=1.15, aspect="auto")
    axes.set_yticks(range(len(rows)), list(map(figure_text, rows)), fontsize=6.5)
    axes.set_xticks(range(len(columns)), columns, fontsize=6.5)
    axes.set_xlabel("block", fontsize=8)
    axes.set_xticks(np.arange(-0.5, len(columns)), minor=True)
    axes.set_yticks(np.arange(-0.5, len(rows)), minor=True)
    axes.grid(which="minor", color="0.8", linewidth=0.6)
    axes.tick_params(which="minor", length=0)


def write_freezing(record: Path, path: Path | None = None) -> dict[str, Path]:
    """Draw the freezing of a record.

    Args:
        record: file of a record.
        path: of the figures without ending; beside the record by default.

    Returns:
        By ending, the files.

    Raises:
        RecordError: nothing was frozen in that run, or the record cannot be read.
    """
    content = read_record(record)
    facts = content.data.get("diagnostics", {}).get("fisher_freezing")
    if facts is None:
        raise RecordError(f"'{record}' is no record of a run with FisherFreezing")
    if fault := first_fault(facts, SCHEMA_FILE):
        raise RecordError(f"'{record}' does not say what was frozen: diagnostics.fisher_freezing is not valid {fault}")
    cell = content.data["cell"]
    title = f"{cell['recipe']} on {cell['dataset']}, seed {cell['seed']}: FisherFreezing, {facts['mode']}"
    return save_figure(freezing_figure(facts, figure_text(title)), path or record.with_name(f"{record.stem}.freezing"))
