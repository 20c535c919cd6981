"""Our rows beside the papers': only for clip11, OpenAI's ViT-B/16, same protocol and shots; else their block alone."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping

import pandas as pd
import yaml

from clipbench.report.aggregate import AVERAGE, averages_of, grouped, label_of, rows_of
from clipbench.report.cells import TRANSFER, Row
from clipbench.report.layout import (
    DASH,
    PROTOCOLS,
    VALIDATED_CAPTION,
    Grid,
    Line,
    Section,
    Shown,
    heads_of,
    is_frozen,
    is_validated,
    is_whole,
    marks,
)
from clipbench.report.printed import percent
from clipbench.report.published import KEYS, TABLES, published_frame, read_errata, read_published
from clipbench.report.tables import text
from clipbench.resources import configs_dir

SAME_BACKBONE = re.compile(r"ViT-B-16(-quickgelu)?/openai")
MEASURES = {
    "base_to_novel": [("base", "Base"), ("novel", "Novel"), ("h", "H")],
    "few_shot": [("accuracy", "Accuracy")],
    "cross_dataset": [("accuracy", "Accuracy")],
}
CLIPFIT = (
    "clipfit: the paper's text states only a gain of 7.27 in H over zero-shot, which makes 78.97 of 71.70; its values "
    "by dataset stand in no source that was read"
)


def compare_published(frame: pd.DataFrame, published_as: Mapping[str, str] | None = None, width: int = 100) -> str:
    """The published block for a terminal, with our rows above it where they may be compared.

    Args:
        frame: our leaderboard; may be empty.
        published_as: recipe to the papers' name of it; None reads `published_as` of the packaged recipes.
        width: columns of the terminal.
    """
    return text(published_sections(frame, published_as), width=width)


def published_sections(frame: pd.DataFrame, published_as: Mapping[str, str] | None = None) -> list[Section]:
    """The published block of each protocol in the frame, one section per number of shots that can be compared."""
    names = recipe_names() if published_as is None else published_as
    rows = rows_of(frame)
    suites = sorted({row["suite"] for row in rows} - {"clip11"})
    result = []
    for table in [name for name in TABLES if any(row["protocol"] == name for row in rows)] or TABLES[:1]:
        ours = [row for row in rows if row["protocol"] == table and is_comparable(row)]
        known = {row.shots for row in read_published(table)}
        for shots in sorted({row["shots"] for row in ours} & known) or [16]:
            own = [row for row in ours if row["shots"] == shots]
            result.append(_section(table, shots, own, names, suites))
    return result


def published_rows(frame: pd.DataFrame, table: str) -> pd.DataFrame:
    """The papers' rows at each number of shots of our leaderboard that they have; at 16 where they have none of these.

    Args:
        frame: ours; may be empty.
        table: `base_to_novel` or `few_shot`.
    """
    known = {row.shots for row in read_published(table)}
    return pd.concat([published_frame(table, shots) for shots in sorted(set(frame["shots"]) & known) or [16]])


def is_comparable(row: Row) -> bool:
    """Whether our row may stand beside the papers': OpenAI's weights, by name or SHA-256, on the suite's own data."""
    backbone = row.get("pretrained") or row["backbone"]
    return row["suite"] == "clip11" and not row.get("own_data") and SAME_BACKBONE.fullmatch(backbone) is not None


@functools.cache
def recipe_names() -> Mapping[str, str]:
    """Recipe to published name, from the packaged recipes."""
    names = {}
    for path in sorted((configs_dir() / "methods").glob("*.yaml")):
        recipe = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        if recipe.get("published_as"):
            names[path.stem] = str(recipe["published_as"])
    return names


def _section(table: str, shots: int, ours: list[Row], names: Mapping[str, str], suites: list[str]) -> Section:
    papers = rows_of(published_frame(table, shots))
    mine, theirs = averages_of(ours), averages_of(papers)
    rows = [*mine, *theirs]
    heads, entries = ["Recipe"], []
    for column, head in MEASURES[table]:
        marked = marks([row[column] for row in rows], [is_whole(row) and not is_frozen(row) for row in rows])
        heads.append(head)
        entries.append([Shown(percent(row[column]), "", mark) for row, mark in zip(rows, marked, strict=True)])
    if mine:
        last = MEASURES[table][-1][0]
        stated = {row["recipe"]: row[last] for row in theirs}
        published = ["" if row["variant"] else names.get(row["recipe"], "") for row in mine]
        less = [row[last] - stated.get(name, math.nan) for row, name in zip(mine, published, strict=True)]
        heads.append("vs paper")
        entries.append([Shown(DASH if math.isnan(d) else f"{d:+.2f}") for d in less] + [Shown("")] * len(theirs))
    heads.append("Source")
    by_weight = sorted(read_published(table), key=lambda row: row.dataset == AVERAGE)  # that of the average wins
    origin = {row.method: row.source.partition("@")[0] for row in by_weight}
    entries.append([Shown("our records")] * len(mine) + [Shown(_short(origin[row["recipe"]])) for row in theirs])
    labels = [_ours(row) for row in mine] + [row["recipe"] for row in theirs]
    lines = [
        Line(label, is_frozen(row), [column[index] for column in entries], is_validated(row))
        for index, (label, row) in enumerate(zip(labels, rows, strict=True))
    ]
    return Section(
        f"published, ViT-B/16, {PROTOCOLS[table]}, {shots} shots",
        Grid(f"Average over {len(KEYS) - (table == TRANSFER)} datasets", heads, lines),
        _details(ours, papers, names, *MEASURES[table][-1]),
        " ".join([_caption(table, bool(mine), suites), *([VALIDATED_CAPTION] if any(map(is_validated, mine)) else [])]),
        _notes(table, {row["recipe"] for row in theirs}),
    )


def _short(source: str, length: int = 28) -> str:
    return source if len(source) <= length else source[: length - 1] + "…"


def _ours(row: Row) -> str:
    return f"{label_of(row)}, ours" + ("" if row["setting"] == "paper" else f", {row['setting']}")


def _details(ours: list[Row], papers: list[Row], names: Mapping[str, str], column: str, head: str) -> list[Grid]:
    """Our recipes by dataset, each followed by the paper's line where it is known by dataset."""
    lines = []
    for (recipe, _, variant), rows in grouped(ours, ["recipe", "setting", "variant"]).items():
        paper = {row["dataset"]: row[column] for row in papers if row["recipe"] == names.get(recipe)}
        if variant or len(paper) < 2:
            continue
        mine = {row["dataset"]: row[column] for row in rows}
        for label, values in ((_ours(rows[0]), mine), (f"{names[recipe]}, paper", paper)):
            shown = [Shown(percent(values.get(key, math.nan))) for key in [*KEYS.values(), AVERAGE]]
            lines.append(Line(label, False, shown))
    heads = heads_of(ours, [*KEYS.values(), AVERAGE])
    return [Grid(f"{head} by dataset", ["Recipe", *heads], lines, by_dataset=True)] if lines else []


def _caption(table: str, beside: bool, suites: list[str]) -> str:
    parts = [
        "Published averages, recomputed from the printed rows by the aggregator of our own tables where all are known; "
        "claims of their authors, on their own draws of ImageNet, not reproduced by us."
    ]
    if not beside:
        parts.append(
            f"There is no record of suite clip11 with ViT-B-16/openai under {table}: the published block stands alone."
        )
        parts += [f"Nothing of suite {', '.join(suites)} may be compared with it."] if suites else []
    return " ".join(parts)


def _notes(table: str, shown: set[str]) -> list[str]:
    aside = {row.method for row in read_published(table) if not row.comparable}
    wrong = sorted({erratum.method for erratum in read_errata() if erratum.table == table and erratum.checked} & shown)
    notes = []
    if aside:
        notes.append(
            f"{len(aside)} more published rows are not comparable (re-runs by others, texts of language models, "
            "transductive, chosen on other data); results/published/ has them with the reason"
        )
    if wrong:
        notes.append(f"printed otherwise, see results/published/errata.csv: {', '.join(wrong)}")
    return [*notes, CLIPFIT] if table == "base_to_novel" else notes
