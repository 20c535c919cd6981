"""What a leaderboard shows of several numbers of shots: averages of recipes by shots, and each recipe by dataset."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pandas as pd

from clipbench.report.aggregate import AVERAGE, IDENTITY, averages_of, grouped, label_of, rows_of
from clipbench.report.cells import Row
from clipbench.report.escaping import DASH, FROZEN
from clipbench.report.layout import (
    PARTIAL,
    VALIDATED_CAPTION,
    Grid,
    Line,
    Section,
    Shown,
    accuracies,
    averaged,
    heads_of,
    is_frozen,
    is_of_one_seed,
    is_validated,
    is_whole,
    lines_of,
    measures,
    title_of,
)
from clipbench.report.printed import percent


class Series(NamedTuple):
    """Rows that differ by their number of shots and by nothing else that keeps tables apart.

    Attributes:
        identity: suite, backbone, protocol, setting.
        shots: the numbers of shots, rising.
        recipes: names of rows, the best at the most shots first.
        rows: all of them.
        places: by recipe, shots and dataset.
        column: what is shown: accuracy, or H where some classes are novel.
        head: how it is called.
    """

    identity: tuple
    shots: list[int]
    recipes: list[str]
    rows: list[Row]
    places: dict[tuple[str, int, str], Row]
    column: str
    head: str

    @property
    def datasets(self) -> list[str]:
        """In the order of the suite, the average last."""
        return sorted(dict.fromkeys(row["dataset"] for row in self.rows), key=lambda name: name == AVERAGE)

    def row(self, recipe: str, shots: int, dataset: str) -> Row:
        """A row, or one without cells."""
        nothing = {self.column: math.nan, "cells": 0, "cells_expected": 0, "novel_rule": ""}
        return self.places.get((recipe, shots, dataset), nothing)


def series_of(frame: pd.DataFrame) -> Iterator[Series]:
    """What of a leaderboard was computed at several numbers of shots."""
    for identity, rows in grouped(rows_of(frame), IDENTITY[:4]).items():
        shots = sorted({row["shots"] for row in rows})
        if len(shots) > 1:
            by_shots = sorted(rows, key=lambda row: -row["shots"])  # stable: within one number they are ranked
            recipes = list(dict.fromkeys(label_of(row) for row in by_shots))
            places = {(label_of(row), row["shots"], row["dataset"]): row for row in rows}
            yield Series(identity, shots, recipes, rows, places, *measures(rows)[-1])


def with_shots(frame: pd.DataFrame, shown: Sequence[Section]) -> list[Section]:
    """The sections of a leaderboard, and below them one for all numbers of shots together where there are several.

    Args:
        frame: the leaderboard.
        shown: its sections.
    """
    return [*shown, *map(_section, series_of(frame))]


def _section(series: Series) -> Section:
    averages = averages_of(series.rows)
    lines: list[Row] = []
    for recipe in series.recipes:  # the row at the most shots speaks for the marks of the line
        own = [row for row in averages if label_of(row) == recipe]
        marked = any(map(is_validated, own))
        last = max(own, key=lambda row: row["shots"])
        lines.append(last | {"validation_free": "false" if marked else last["validation_free"]})
    columns = [
        accuracies([series.row(recipe, shots, AVERAGE) for recipe in series.recipes], series.column, spread=True)
        for shots in series.shots
    ]
    heads = ["Recipe", *map(_of_shots, series.shots)]
    title = f"{series.head} by shots, average over {averaged(series.rows, averages)}"
    return Section(
        f"{title_of((*series.identity, None))}, {', '.join(map(str, series.shots))} shots",
        Grid(title, heads, lines_of(lines, columns)),
        [_of_recipe(series, recipe) for recipe in series.recipes],
        " ".join(_caption(series, averages)),
        [],
    )


def _of_recipe(series: Series, recipe: str) -> Grid:
    """Shots against datasets."""
    lines = [
        Line(_of_shots(shots), False, [
            _shown(series.row(recipe, shots, dataset), series.column) for dataset in series.datasets
        ])
        for shots in series.shots
    ]  # fmt: skip
    title = f"{recipe}: {series.head} by shots and dataset"
    return Grid(
        title,
        ["Shots", *heads_of(series.rows, series.datasets)],
        lines,
        by_dataset=True,
        in_terminal=len(series.recipes) == 1,
    )


def _shown(row: Row, column: str) -> Shown:
    return Shown(percent(row[column]), partial=not is_whole(row) and not math.isnan(row[column]))


def _of_shots(shots: int) -> str:
    return f"{shots} shot{'s' * (shots != 1)}"


def _caption(series: Series, averages: Sequence[Row]) -> Iterator[str]:
    singly = any(map(is_of_one_seed, averages))
    mean = "one seed a line, mean over datasets" if singly else "mean over seeds, then over datasets"
    yield f"{series.head} in percent for each number of shots a class: {mean}."
    if any(not math.isnan(row.get(f"{series.column}_std", math.nan)) for row in averages):
        yield "± is the sample standard deviation (n - 1) over seeds of the average over the datasets."
    if len(series.recipes) > 1 and not singly:
        yield "Best of each number of shots in bold, second underlined."
    if any(map(is_frozen, averages)):
        yield f"{FROZEN} has no classifier of its own for novel classes and answers zero-shot there: not ranked."
    if any(map(is_validated, averages)):
        yield VALIDATED_CAPTION
    if not all(map(is_whole, series.rows)):
        yield f"{DASH} no average, because cells are missing; {PARTIAL} mean over fewer seeds; neither is ranked."
