"""What the changes say about the paper's claim: do low text biases, and the first LayerNorm, change most?

Four quantities are looked at side by side, in every group of comparable tensors (tower and kind):

- `mean_square`: squared difference per number. Inside a group of tensors of one size its order is that of the paper's
  sum of squares.
- `relative`: norm of the difference over the norm of the pretrained tensor.
- `path_length`: sum over the steps of lr times the norm of the gradient: the order that gradient scale alone predicts.
- `per_path`: norm of the difference over the gradient path: what is left of the order when gradient scale is taken out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from clipbench.analysis.positions import position_of

QUANTITIES = ("mean_square", "relative", "path_length", "per_path")
SUMMARY_COLUMNS = (
    "group", "quantity", "tensors", "cells", "depth_rho", "falls_in", "first", "first_rank", "first_largest_in",
    "first_over_median", "largest", "largest_in", "path_rho",
)  # fmt: skip
SAID = {
    "mean_square": "change per number",
    "relative": "relative change",
    "path_length": "gradient path",
    "per_path": "change / path",
}


def last_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the end of every fit (all rows where there are no steps), with group, depth and `per_path`."""
    if "step" in frame:
        frame = frame[frame["step"] == frame["steps"]]
    if "path_length" in frame:
        path = frame["path_length"].where(frame["path_length"] > 0)
        frame = frame.assign(per_path=frame["sum_squares"] ** 0.5 / path)
    return placed(frame)


def placed(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with the columns `group`, `part` and `depth`."""
    places = {
        (tensor, reference): position_of(tensor, reference == "start")
        for tensor, reference in frame[["tensor", "reference"]].drop_duplicates().itertuples(index=False)
    }
    found = [places[pair] for pair in zip(frame["tensor"], frame["reference"], strict=True)]
    return frame.assign(
        group=[place.group for place in found],
        part=[place.part for place in found],
        depth=[place.depth for place in found],
    )


def groups_of(frame: pd.DataFrame) -> list[str]:
    """The groups of a placed frame: text before image, kinds by name, weights before biases."""

    def order(group: str) -> tuple[int, str, bool]:
        tower, _, kind = group.partition(" ")
        return ("text", "image", tower).index(tower), kind.rpartition(" ")[0] or kind, kind.endswith("bias")

    return sorted(frame["group"].unique(), key=order)


def spearman(one: pd.Series, other: pd.Series) -> float:
    """Rank correlation, ties by their mean rank; nan where a side is constant or one is too short.

    Source: Pearson's correlation of the ranks.
    """
    if len(one) < 2 or one.nunique() < 2 or other.nunique() < 2:
        return math.nan
    return float(one.rank().corr(other.rank()))


def summarise(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """One row per group and quantity, over all cells.

    Args:
        frame: rows of changes, with a column `cell`.

    Returns:
        `depth_rho`: mean over the cells of Spearman's correlation between quantity and depth (below 0: falls with
        depth), `falls_in`: cells where it is below 0; `first`: the tensor nearest the input, `first_rank`: its mean
        rank (1: largest), `first_largest_in`: cells where it has rank 1, `first_over_median`: its quantity over the
        median of the others, geometric mean over the cells; `largest`: the tensor that is largest most often and
        `largest_in` how often; `path_rho`: mean correlation with the gradient path over the tensors of a cell.
    """
    rows = []
    ends = last_rows(frame)
    for group in groups_of(ends):
        some = ends[ends["group"] == group]
        for quantity in QUANTITIES:
            if quantity in some and some[quantity].notna().any():
                rows.append({"group": group, "quantity": quantity} | _row(some, quantity))
    return rows


def _row(some: pd.DataFrame, quantity: str) -> dict[str, Any]:
    rhos, paths, ranks, ratios, largest = [], [], [], [], []
    first = str(some.sort_values(["depth", "tensor"], kind="stable")["tensor"].iloc[0])
    for _, cell in some.groupby("cell"):
        cell = cell[cell[quantity].notna()].set_index("tensor")
        values = cell[quantity]
        if values.empty:
            continue
        rhos.append(spearman(values, cell["depth"]))
        if "path_length" in cell and quantity in ("mean_square", "relative"):
            paths.append(spearman(values, cell["path_length"]))
        largest.append(str(values.idxmax()))
        if first in values and len(values) > 1:
            ranks.append(float(values.rank(ascending=False)[first]))
            median = float(values.drop(first).median())
            ratios.append(float(values[first]) / median if median > 0 else math.nan)
    often = pd.Series(largest).value_counts()
    return {
        "tensors": some["tensor"].nunique(),
        "cells": len(largest),
        "depth_rho": _mean(rhos),
        "falls_in": sum(rho < 0 for rho in rhos),
        "first": first,
        "first_rank": _mean(ranks),
        "first_largest_in": sum(rank == 1 for rank in ranks),
        "first_over_median": _geometric(ratios),
        "largest": often.index[0],
        "largest_in": int(often.iloc[0]),
        "path_rho": _mean(paths),
    }


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _geometric(values: list[float]) -> float:
    return math.exp(_mean([math.log(value) for value in values])) if values and min(values) > 0 else math.nan


def profile(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """One row per tensor: mean and sample deviation over the cells of every quantity at the end, in order of depth."""
    ends = last_rows(frame)
    quantities = [name for name in ("sum_squares", *QUANTITIES, "gradient_squares") if name in ends]
    rows: list[dict[str, Any]] = []
    for (group, tensor), some in ends.groupby(["group", "tensor"], sort=False):
        row = {"group": group, "tensor": tensor, "depth": some["depth"].iloc[0], "numbers": some["numbers"].iloc[0]}
        row["cells"] = len(some)
        for name in quantities:
            row |= {name: some[name].mean(), f"{name}_std": some[name].std()}
        rows.append(row)
    order = {group: place for place, group in enumerate(groups_of(ends))}
    return sorted(rows, key=lambda row: (order[row["group"]], row["depth"], row["tensor"]))


def lines_of(summary: list[dict[str, Any]]) -> Iterator[str]:
    """The summary as aligned text, a table per group that has something to compare."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in summary:
        groups.setdefault(row["group"], []).append(row)
    for group, rows in groups.items():
        if rows[0]["tensors"] > 1:
            yield f"{group}: {rows[0]['tensors']} tensors, {rows[0]['cells']} cells"
            yield f"  {'':<20}{'Spearman with':>15}{'':>11}   first: {rows[0]['first']}"
            yield (
                f"  {'':<20}{'depth':>7}{'path':>8}{'falls in':>11}   "
                f"{'largest in':>10}{'mean rank':>11}{'x median':>10}   largest most often"
            )
            yield from map(_line, rows)


def _line(row: dict[str, Any]) -> str:
    cells = row["cells"]
    return (
        f"  {SAID[row['quantity']]:<20}{_signed(row['depth_rho'], 7)}{_signed(row['path_rho'], 8)}"
        f"{_share(row['falls_in'], cells):>11}   {_share(row['first_largest_in'], cells):>10}"
        f"{row['first_rank']:>11.1f}{row['first_over_median']:>10.2f}   {row['largest']} ({row['largest_in']})"
    )


def _signed(value: float, width: int) -> str:
    return f"{'':>{width}}" if math.isnan(value) else f"{value:>+{width}.2f}"


def _share(count: int, cells: int) -> str:
    return f"{count} of {cells}"
