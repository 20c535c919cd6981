"""What a leaderboard shows of base and novel images among all classes at once: a table of averages, two by dataset."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import pandas as pd

from clipbench.report.aggregate import IDENTITY, averages_of, grouped, rows_of
from clipbench.report.cells import Row
from clipbench.report.layout import (
    DASH,
    FROZEN,
    Grid,
    Section,
    accuracies,
    averaged,
    detail,
    is_frozen,
    is_whole,
    lines_of,
)

HEADS = {
    "joint_base": "Joint base", "joint_novel": "Joint novel", "joint_h": "Joint H", "openworld_auc": "OpenworldAUC",
}  # fmt: skip
CAPTION = (
    "Over all classes at once: accuracy of the base and of the novel test images among all classes, their H, and "
    "OpenworldAUC, the share of pairs of a base and a novel image in percent that are both right within their own "
    "classes and of which the base image looks more like a base class."
)


def with_joint(frame: pd.DataFrame, shown: Sequence[Section]) -> list[Section]:
    """The sections of a leaderboard, with what was measured over all classes at once where anything was.

    Args:
        frame: the leaderboard.
        shown: its sections, in the order of the frame.
    """
    groups = grouped(rows_of(frame), IDENTITY[:5]).values()
    return [_with_joint(section, rows) for section, rows in zip(shown, groups, strict=True)]


def _with_joint(section: Section, rows: list[Row]) -> Section:
    averages = averages_of(rows)
    if all(math.isnan(row["openworld_auc"]) for row in rows):
        return section
    columns = [accuracies(averages, column, spread=True) for column in HEADS]
    title = f"Over all classes at once, average over {averaged(rows, averages)}"
    table = Grid(title, ["Recipe", *HEADS.values()], lines_of(averages, columns))
    by_dataset = [
        dataclasses.replace(detail(rows, averages, column, HEADS[column]), in_terminal=False)
        for column in ("joint_h", "openworld_auc")
    ]
    parts = [section.caption, CAPTION]
    if any(map(is_frozen, averages)):
        parts.append(f"There, zero-shot divides the probability between the halves for {FROZEN}.")
    if any(is_whole(row) and math.isnan(row["openworld_auc"]) for row in averages):
        parts.append(f"{DASH} there: some of the row's records are from before it was measured.")
    return dataclasses.replace(
        section, beside=[*section.beside, table], details=[*section.details, *by_dataset], caption=" ".join(parts)
    )
