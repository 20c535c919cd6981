"""Leaderboards to draw and print: a few recipes on a few datasets, with what can go wrong."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from clipbench.records.store import Record, write_record
from clipbench.report.aggregate import aggregate
from clipbench.report.cells import cells_of
from clipbench.report.select import select
from tests.records.records import cell, record

DATASETS = ("imagenet", "stanford_cars", "dtd")
EVIL = [
    r"\input{/etc/passwd}", "[2cm] x", "*x", r"\\[2em]", "a%b", "a_b_c", "<script>alert(1)</script>", "a|b", r"a\|b",
    "`x`", "a\nb", "a\r\nb", "=1+1", "+1", "-1", "@sum", "\t=1", "\x1b[31mred\x1b[0m", "[red]x[/red]", "[/x]", "$x$",
    "\u202eevil", "$$", r"\$", "_x", "**x**", "![x](y)", "[x](javascript:y)", "# x", "1. x", "- x", "> x", "~~x~~",
    "&lt;", "a---b", "", '"', "a,b", "'", "\ud800", "日本", "🎉", "\u200b", "a\\", "---", "===", "x" * 300, "{", "}",
    "\\VAR{1}", "\\BLOCK{", "%(x)s", "\uff3b\uff05",
]  # fmt: skip
"""Names that mean something to LaTeX, Markdown, HTML, a spreadsheet, a terminal, rich or matplotlib."""
SCORES = {"zero_shot": (20, 30), "clipfit": (30, 29), "coop": (32, 20), "tip_adapter": (36, 30)}


def outcomes(
    recipes: dict[str, tuple[int, int]] | None = None, seeds: int = 3, **identity: Any
) -> list[dict[str, Any]]:
    """Records of each recipe on all datasets; `tip_adapter` answers zero-shot on novel classes."""
    some = []
    for recipe, (base, novel) in (recipes or SCORES).items():
        for place, dataset in enumerate(DATASETS):
            for seed in range(1, seeds + 1):
                of = cell(recipe=recipe, dataset=dataset, seed=seed, **identity)
                one = record(of, base=base + place - seed, novel=novel - place + seed)
                if recipe == "tip_adapter" and "novel" in one["splits"]:
                    one["splits"]["novel"]["novel_rule"] = "frozen"
                some.append(one)
    return some


def board(records: list[dict[str, Any]]) -> pd.DataFrame:
    chosen = select(Record(one) for one in records)
    suites = {one["cell"]["suite"]: DATASETS for one in records}
    return aggregate(cells_of(chosen.records), chosen.missing, suites)


def write(folder: Path, records: list[dict[str, Any]]) -> None:
    for one in records:
        write_record(folder, one)


def apart_and_inside(axes: Axes, boxes: list[Bbox]) -> None:
    """Boxes of names do not touch each other, nor stand outside their panel."""
    for one, other in itertools.combinations(boxes, 2):
        width = min(one.x1, other.x1) - max(one.x0, other.x0)
        height = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert width <= 0 or height <= 0, (one, other)
    frame = axes.get_window_extent()
    for box in boxes:
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1
        assert frame.y0 <= box.y0 < box.y1 <= frame.y1


def assert_grey(drawn: Figure) -> None:
    """Nothing of a figure has a colour."""
    drawn.canvas.draw()
    pixels = np.asarray(drawn.canvas.buffer_rgba())[..., :3].astype(int)  # type: ignore[attr-defined]
    assert np.ptp(pixels, axis=-1).max() == 0
