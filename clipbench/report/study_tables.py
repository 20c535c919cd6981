"""The tables of a study: one for each axis around its default, with a caption that says what the numbers stand on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from clipbench.report.aggregate import AVERAGE, grouped, rows_of
from clipbench.report.cells import Row
from clipbench.report.layout import (
    COST_CAPTION,
    DASH,
    FROZEN,
    PROTOCOLS,
    Grid,
    Line,
    Section,
    Shown,
    accuracies,
    costs,
    detail,
    is_frozen,
    is_whole,
    measures,
)
from clipbench.report.shots_tables import with_shots

if TYPE_CHECKING:
    from clipbench.recipes.studies import Study

BESIDE = "beside"
"""`axis` of the rows that are on none: the defaults and the references."""


def scope_of(study: Study, suite_size: int) -> str:
    """What the numbers stand on, in one sentence that every table and figure carries."""
    names = list(study.datasets)
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    some = f" ({len(names)} of the suite's {suite_size})" if len(names) < suite_size else ""
    seeds, shots = (", ".join(map(str, numbers)) for numbers in (study.seeds, study.shots))
    return (
        f"Suite {Path(study.suite).stem}, {PROTOCOLS.get(study.protocol, study.protocol)}, {shots} shots; "
        f"dataset{'s' * (len(names) > 1)} {listed}{some}; "
        + (f"seeds {seeds}." if len(study.seeds) > 1 else f"one seed ({seeds}), so no spread is known.")
    )


def study_sections(study: Study, frame: pd.DataFrame, scope: str, note: str = "") -> list[Section]:
    """The tables: first what stands beside, then an axis each; for each number of shots, and then over the shots."""
    averages = [row for row in rows_of(frame) if row["dataset"] == AVERAGE]
    caption = " ".join(filter(None, [scope, *_caption(study, frame, averages), study.caption, note]))
    beside = "The default" if len(study.axes) == 1 else "The defaults"
    shown = []
    for (shots,), rows in grouped(rows_of(frame), ["shots"]).items():
        at = f", {shots} shot{'s' * (shots != 1)}" if len(study.shots) > 1 else ""
        shown.append(_section(rows, BESIDE, "Recipe", f"{beside} and what stands beside{at}", caption))
        for axis in study.axes:
            shown.append(_section(rows, axis.name, "Value", f"{axis.name}, around {axis.centre}{at}", scope))
    return with_shots(frame, shown)


def _section(rows: Sequence[Row], axis: str, head: str, title: str, caption: str) -> Section:
    own = [row for row in rows if row["axis"] == axis]
    averages = [row for row in own if row["dataset"] == AVERAGE]
    heads, filled = [head], []
    if axis != BESIDE:
        heads.append("Recipe")
        filled.append([Shown(row["recipe"]) for row in averages])
    if not all(map(is_whole, averages)):
        heads.append("Cells")
        filled.append([Shown(f"{row['cells']}/{row['cells_expected']}") for row in averages])
    columns = measures(averages)
    for column, name in columns:
        heads.append(name)
        filled.append(accuracies(averages, column, spread=True))
    heads += ["vs default", "vs zero-shot"]
    filled += [[Shown(_signed(row[name])) for row in averages] for name in ("h_vs_default", "h_vs_zero_shot")]
    for name, entries in [*costs(averages), ("Gain/kB", [Shown(_rate(row["gain_per_kb"])) for row in averages])]:
        heads.append(name)
        filled.append(entries)
    lines = [
        Line(_name(row, axis), is_frozen(row), [column[index] for column in filled])
        for index, row in enumerate(averages)
    ]
    by_dataset = detail(own, averages, *columns[-1])
    named = [
        dataclasses.replace(line, label=_name(row, axis)) for line, row in zip(by_dataset.lines, averages, strict=True)
    ]
    datasets = len({row["dataset"] for row in own}) - 1
    return Section(
        title, Grid(f"Average over {datasets} dataset{'s' * (datasets != 1)}", heads, lines),
        [dataclasses.replace(by_dataset, heads=[head, *by_dataset.heads[1:]], lines=named)], caption, [],
    )  # fmt: skip


def _name(row: Row, axis: str) -> str:
    return f"{row['value']} (default)" if row["is_default"] and axis != BESIDE else str(row["value"])


def _signed(value: float) -> str:
    return DASH if math.isnan(value) else f"{value:+.2f}"


def _rate(value: float) -> str:
    return DASH if math.isnan(value) else f"{value:.3g}"


def _caption(study: Study, frame: pd.DataFrame, averages: Sequence[Row]) -> list[str]:
    parts = []
    if len(measures(averages)) == 3:
        parts.append(
            "Accuracy in percent on the test images of the base and of the novel classes, each within its own classes; "
            "H is the harmonic mean of the two averages."
        )
    error = standard_error(study, frame)
    if not math.isnan(error):
        parts.append(
            f"The test images alone give the default's H a binomial standard error of about {error:.1f} points; draw "
            "and training seed add to it, so differences of that size may be chance."
        )
    parts.append(COST_CAPTION)
    parts.append("Gain/kB: points of H above zero-shot for each 1,000 stored bytes.")
    parts.append("Best of a table in bold, second underlined.")
    if any(map(is_frozen, averages)):
        parts.append(f"{FROZEN} answers zero-shot on novel classes: not ranked.")
    if not all(map(is_whole, averages)):
        parts.append(f"{DASH} no average, because cells are missing.")
    return parts


def standard_error(study: Study, frame: pd.DataFrame) -> float:
    """Binomial standard error of the default's average H, in points; NaN where H or a cell is missing.

    Base and novel averages are means of proportions over datasets of known size; the error of H follows to first
    order from dH = 2 (novel^2 d base + base^2 d novel) / (base + novel)^2. Seeds share their test images and do not
    lower it.
    """
    totals = frame.attrs["test_images"]
    rows = [
        row for row in rows_of(frame)
        if (row["axis"], row["recipe"], row["shots"]) == (BESIDE, study.default.label, study.shots[-1])
    ]  # fmt: skip
    parts = [row for row in rows if row["dataset"] != AVERAGE]
    whole = next(row for row in rows if row["dataset"] == AVERAGE)
    if math.isnan(whole["h"]) or whole["h"] == 0:
        return math.nan

    def variance(split: str) -> float:
        shares = [(row[split] / 100, totals[row["dataset"]][split]) for row in parts]
        return 100**2 * math.fsum(p * (1 - p) / n for p, n in shares) / len(parts) ** 2

    base, novel = whole["base"], whole["novel"]
    spread = novel**4 * variance("base") + base**4 * variance("novel")
    return 2 * math.sqrt(spread) / (base + novel) ** 2
