"""What a leaderboard shows, before it is Markdown, LaTeX or a terminal: sections of grids with marks and a caption."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import pandas as pd

from clipbench.report.aggregate import AVERAGE, IDENTITY, averages_of, grouped, label_of, rows_of
from clipbench.report.cells import TRANSFER, Row
from clipbench.report.escaping import DASH, FROZEN, VALIDATED
from clipbench.report.printed import COSTS, percent

PARTIAL = "*"
MINI = "The suite mini is a test bench of the machinery and a playground: its numbers say nothing about real accuracy."
NOTHING = "no recipe has all its cells: nothing to draw yet"
PROTOCOLS = {
    "base_to_novel": "base-to-novel", "few_shot": "few-shot, all classes", "cross_dataset": "cross-dataset transfer",
}  # fmt: skip
VALIDATED_CAPTION = f"{VALIDATED} a setting was chosen by looking at labelled images beyond the shots."
COST_CAPTION = (
    "Cost, a mean over the cells: numbers trained, their share of the backbone, bytes of what was learned, seconds of "
    "a training step and of the whole fit, the largest peak of memory, time per test image above zero-shot's."
)


@dataclasses.dataclass(frozen=True)
class Shown:
    """One entry: text, spread over seeds, mark (`best`, `second` or none), whether it stands on fewer seeds."""

    text: str
    spread: str = ""
    mark: str = ""
    partial: bool = False


@dataclasses.dataclass(frozen=True)
class Line:
    """One recipe's line of a grid; `validated`: a setting was chosen on labelled images beyond the shots."""

    label: str
    frozen: bool
    entries: list[Shown]
    validated: bool = False

    @property
    def marks(self) -> str:
        """What stands behind its name."""
        return FROZEN * self.frozen + VALIDATED * self.validated


@dataclasses.dataclass(frozen=True)
class Grid:
    """A table: a title, the heads of its columns (the first names the recipe), a line per recipe."""

    title: str
    heads: list[str]
    lines: list[Line]
    by_dataset: bool = False
    in_terminal: bool = True


@dataclasses.dataclass(frozen=True)
class Section:
    """All recipes that may be compared: one suite, backbone, protocol, setting and number of shots.

    `beside` are further tables of averages, which follow the summary.
    """

    title: str
    summary: Grid
    details: list[Grid]
    caption: str
    notes: list[str]
    beside: list[Grid] = dataclasses.field(default_factory=list)


def sections(frame: pd.DataFrame) -> list[Section]:
    """The leaderboard as sections, in the order of the frame."""
    notes = {"mini": MINI} | {suite: note for suite, note in frame.attrs.get("suite_notes", {}).items() if note}
    groups = grouped(rows_of(frame), IDENTITY[:5])
    return [_section(identity, rows, notes.get(identity[0], "")) for identity, rows in groups.items()]


def title_of(identity: tuple) -> str:
    """`suite mini, backbone mini, base-to-novel, 16 shots, setting paper` of the first five columns."""
    suite, backbone, protocol, setting, shots = identity
    shown = f" {shots} shots," if shots is not None else ""
    return f"suite {suite}, backbone {backbone}, {PROTOCOLS.get(protocol, protocol)},{shown} setting {setting}"


def measures(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Columns of accuracy with their heads: base, novel and H, or accuracy alone where nothing is novel."""
    if all(row["protocol"] != "base_to_novel" and math.isnan(row["novel"]) for row in rows):
        return [("accuracy", "Accuracy")]
    return [("base", "Base"), ("novel", "Novel"), ("h", "H")]


def marks(values: Sequence[float], eligible: Sequence[bool]) -> list[str]:
    """`best` for the largest, `second` for the next value, as shown with two decimals; nothing without a rival.

    Args:
        values: percent; NaN is never marked.
        eligible: False where a value may not be compared (frozen novel rule, missing cells).
    """
    shown = [round(v, 2) if ok and not math.isnan(v) else None for v, ok in zip(values, eligible, strict=True)]
    ranks = sorted({v for v in shown if v is not None}, reverse=True)
    if sum(v is not None for v in shown) < 2:
        return [""] * len(shown)
    names = {value: name for value, name in zip(ranks, ("best", "second"), strict=False)}
    return [names.get(v, "") if v is not None else "" for v in shown]


def left_out(rows: Sequence[Row], column: str) -> str:
    """Why rows are not drawn, the first eight by name: cells are missing where `column` is NaN, else the cost."""
    reasons = [
        f"{label_of(row)} " + (f"({row['cells']}/{row['cells_expected']} cells)" if unfinished else "(unknown cost)")
        for unfinished in (True, False) for row in rows if math.isnan(row[column]) == unfinished
    ]  # fmt: skip
    return ", ".join(reasons[:8]) + (f" and {len(reasons) - 8} more" if len(reasons) > 8 else "")


def is_whole(row: Row) -> bool:
    """Whether no cell is missing."""
    return row["cells"] == row["cells_expected"]


def is_counted(row: Row) -> bool:
    """Whether the row is of a dataset that counts in the average."""
    return row["dataset"] != AVERAGE and not row.get("beside")


def heads_of(rows: Sequence[Row], datasets: Sequence[str]) -> list[str]:
    """Names of datasets as heads of columns; one that counts in no average says why: `imagenet (source)`."""
    beside = {row["dataset"]: row["beside"] for row in rows if row.get("beside")}
    return [f"{name} ({beside[name]})" if name in beside else name for name in datasets]


def is_of_one_seed(row: Row) -> bool:
    """Whether the row is of one seed of several that are shown one by one: such rows are not ranked."""
    return "seed" in row


def is_frozen(row: Row) -> bool:
    """Whether the novel classes are answered zero-shot."""
    return row["novel_rule"] == "frozen"


def is_validated(row: Row) -> bool:
    """Whether a setting was chosen by looking at labelled images beyond the shots."""
    return row.get("validation_free") == "false"


def _section(identity: tuple, rows: list[Row], notes: str) -> Section:
    averages, columns = averages_of(rows), measures(rows)
    details = [detail(rows, averages, column, head) for column, head in columns]
    caption = " ".join([*_caption(rows, averages), notes]).strip()
    return Section(title_of(identity), _summary(rows, averages, columns), details, caption, _missing(rows))


def _summary(rows: list[Row], averages: list[Row], columns: list[tuple[str, str]]) -> Grid:
    heads, filled = ["Recipe"], []
    if len({row["seeds"] for row in averages}) > 1:
        heads.append("Seeds")
        filled.append([Shown(row["seeds"] or DASH) for row in averages])
    if not all(map(is_whole, averages)):
        heads.append("Cells")
        filled.append([Shown(f"{row['cells']}/{row['cells_expected']}") for row in averages])
    for column, head in columns:
        heads.append(head)
        filled.append(accuracies(averages, column, spread=True))
    for head, entries in costs(averages):
        heads.append(head)
        filled.append(entries)
    return Grid(f"Average over {averaged(rows, averages)}", heads, lines_of(averages, filled))


def averaged(rows: Sequence[Row], averages: Sequence[Row]) -> str:
    """`11 datasets`, or `2 datasets of the suite's 11: dtd, eurosat`."""
    datasets = list(dict.fromkeys(row["dataset"] for row in rows if is_counted(row)))
    count = f"{len(datasets)} dataset{'s' * (len(datasets) != 1)}"
    stated = {tuple(row["averaged"].split("/")) for row in averages if row.get("averaged")}
    for shown, listed in stated:
        if shown != listed:
            return f"{count} of the suite's {listed}: {', '.join(datasets)}"
    return count


def costs(rows: Sequence[Row]) -> list[tuple[str, list[Shown]]]:
    """Columns of cost with their heads; what is trained at the end has one only where it shrank somewhere."""
    shrank = any(row["trained_parameters_end"] < row["trained_parameters"] for row in rows)
    return [
        (head, [Shown(form(row[column])) for row in rows])
        for column, head, form in COSTS
        if shrank or column != "trained_parameters_end"
    ]


def detail(rows: Sequence[Row], averages: Sequence[Row], column: str, head: str) -> Grid:
    """One measure with the datasets as columns, a line for each average row."""
    datasets = sorted(dict.fromkeys(row["dataset"] for row in rows), key=lambda name: name == AVERAGE)
    by_place = {(row["dataset"], label_of(row)): row for row in rows}
    nothing = {column: math.nan, "cells": 0, "cells_expected": 0, "novel_rule": ""}
    filled = [
        accuracies([by_place.get((dataset, label_of(row)), nothing) for row in averages], column)
        for dataset in datasets
    ]
    return Grid(
        f"{head} by dataset", ["Recipe", *heads_of(rows, datasets)], lines_of(averages, filled), by_dataset=True
    )


def lines_of(averages: Sequence[Row], filled: Sequence[Sequence[Shown]]) -> list[Line]:
    """Columns of entries as lines of recipes."""
    return [
        Line(label_of(row), is_frozen(row), [column[index] for column in filled], is_validated(row))
        for index, row in enumerate(averages)
    ]


def accuracies(rows: Sequence[Row], column: str, spread: bool = False) -> list[Shown]:
    """A column of accuracies: best and second marked, on request with the spread over seeds."""
    ranked = [is_whole(row) and not is_frozen(row) and not is_of_one_seed(row) for row in rows]
    marked = marks([row[column] for row in rows], ranked)
    return [
        Shown(
            percent(row[column]),
            percent(row.get(f"{column}_std", math.nan)).replace(DASH, "") if spread else "",
            mark,
            not is_whole(row) and not math.isnan(row[column]),
        )
        for row, mark in zip(rows, marked, strict=True)
    ]


def _caption(rows: list[Row], averages: list[Row]) -> list[str]:
    seeds = sorted({seed for row in averages for seed in row["seeds"].split(",") if seed}, key=int)
    singly = any(map(is_of_one_seed, rows))
    several = len(seeds) > 1 and not singly
    mean = "one seed a line, mean over datasets" if singly else "mean over seeds, then over datasets"
    parts = [f"Seed{'s' * (len(seeds) > 1)} {', '.join(seeds) or DASH}."]
    if averages and averages[0]["protocol"] == TRANSFER:
        parts.append(
            "Trained on all classes of the source alone; accuracy in percent on all test images of each target among "
            f"its own classes: {mean} without the source."
        )
    elif len(measures(rows)) == 1:
        parts.append(f"Accuracy in percent on the test images of all classes: {mean}.")
    else:
        parts.append(
            "Accuracy in percent on the test images of the base and of the novel classes, each within its own classes: "
            f"{mean}. H is the harmonic mean of the two; that of an average is the H of "
            "the averages."
        )
    if several:
        parts.append("± is the sample standard deviation (n - 1) over seeds of the average over the datasets.")
    parts.append(COST_CAPTION)
    if any(row["trained_parameters_end"] < row["trained_parameters"] for row in averages):
        parts.append("At end: what is still trained in the last step.")
    if len(averages) > 1 and not singly:
        parts.append("Best in bold, second underlined.")
    if any(map(is_frozen, averages)):
        parts.append(
            f"{FROZEN} has no classifier of its own for novel classes and answers zero-shot there: not ranked."
        )
    if any(map(is_validated, averages)):
        parts.append(VALIDATED_CAPTION)
    if not all(map(is_whole, rows)):
        parts.append(
            f"{DASH} no average, because cells are missing; {PARTIAL} mean over fewer seeds; neither is ranked."
        )
    return parts


def _missing(rows: list[Row]) -> list[str]:
    """A line per recipe that has missing cells: how many, and where."""
    lines = []
    columns = ["recipe", "variant", *(["seed"] if any(map(is_of_one_seed, rows)) else [])]
    for own in grouped(rows, columns).values():
        holes = [row for row in own if row["dataset"] != AVERAGE and not is_whole(row)]
        if holes:
            names = [f"{row['dataset']} {row['cells_expected'] - row['cells']}" for row in holes]
            (average,) = averages_of(own)
            count = average["cells_expected"] - average["cells"]
            lines.append(
                f"{label_of(average)}: {count} of {average['cells_expected']} cells missing ({', '.join(names)})"
            )
    return lines
