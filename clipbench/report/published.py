"""The papers' numbers: read from `results/published/`, put through our own aggregator, their known errata by name.

Everything there is a claim of its authors or of who quotes them; nothing was reproduced by us.
"""

from __future__ import annotations

import csv
import functools
import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import pandas as pd

from clipbench.report.aggregate import AVERAGE, COLUMNS, aggregate, rows_of
from clipbench.report.cells import COST, TRANSFER, Row
from clipbench.report.harmonic import harmonic_mean
from clipbench.resources import published_dir

KEYS = {
    "ImageNet": "imagenet", "Caltech101": "caltech101", "OxfordPets": "oxford_pets", "StanfordCars": "stanford_cars",
    "Flowers102": "oxford_flowers", "Food101": "food101", "FGVCAircraft": "fgvc_aircraft", "SUN397": "sun397",
    "DTD": "dtd", "EuroSAT": "eurosat", "UCF101": "ucf101",
}  # fmt: skip
OF_SOURCE = "ImageNet(source)"  # how a transfer calls its training set
TABLES = ("base_to_novel", "few_shot", "cross_dataset")
SINGLE = ("few_shot", "cross_dataset")  # one accuracy a dataset
MEAN_TOLERANCE = 0.011  # an average of rows that were rounded to 0.01, rounded itself
H_TOLERANCE = 0.015  # H of two values that were rounded to 0.01, rounded itself


class Published(NamedTuple):
    """One printed row. Accuracies in percent, NaN where the source states none; `base` alone where nothing is novel."""

    method: str
    shots: int
    dataset: str
    base: float
    novel: float
    h: float
    source: str
    comparable: bool
    note: str


class Deviation(NamedTuple):
    """A printed number that the printed rows do not give."""

    table: str
    method: str
    dataset: str
    column: str
    stated: float
    recomputed: float


@functools.cache
def read_published(table: str) -> tuple[Published, ...]:
    """The rows of `results/published/<table>.csv`; the dataset is a key of clip11, or `average`.

    Where two sources print the same row of a method and shots, each gets its repository into the name; of two settings
    their setting.
    """
    with open(published_dir() / f"{table}.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    sources: dict[tuple[str, str], dict[str, set[str]]] = {}
    settings: dict[str, set[str]] = {}
    for line in lines:
        if table in SINGLE:
            by_dataset = sources.setdefault((line["method"], line["shots"]), {})
            by_dataset.setdefault(line["dataset"], set()).add(line["source"])
            settings.setdefault(line["method"], set()).add(line["setting"])
    rows = []
    for line in lines:
        method, shots = line["method"], line.get("shots") or ("0" if line["method"] == "clip_zs" else "16")
        if any(len(there) > 1 for there in sources.get((method, shots), {}).values()):
            method = f"{method} ({line['source'].partition('@')[0].partition('/')[2]})"
        elif table == TRANSFER and len(settings[method]) > 1:  # "inductive (paper)"
            method = f"{method} ({line['setting'].partition('(')[2].rstrip(')')})"
        base, novel, h = (_number(line.get(name)) for name in ("value" if table in SINGLE else "base", "novel", "h"))
        dataset = KEYS.get(line["dataset"].replace(OF_SOURCE, "ImageNet"), line["dataset"])
        comparable = line["comparable"] == "yes"
        rows.append(Published(method, int(shots), dataset, base, novel, h, line["source"], comparable, line["note"]))
    return tuple(rows)


def published_frame(table: str, shots: int = 16, rows: Iterable[Published] | None = None) -> pd.DataFrame:
    """The published block with the columns of a leaderboard, setting `published`.

    A method with all eleven rows is averaged by our aggregator; of the others the printed average stands, its H
    recomputed from base and novel.

    Args:
        table: one of `TABLES`.
        shots: which training size; zero-shot rows always belong.
        rows: instead of those that are comparable.
    """
    chosen = list(rows) if rows is not None else [row for row in read_published(table) if row.comparable]
    by_method: dict[str, list[Row]] = {}
    printed: dict[str, Published] = {}
    for row in chosen:
        if row.shots not in (0, shots):
            continue
        if row.dataset == AVERAGE:
            printed[row.method] = row
        else:
            by_method.setdefault(row.method, []).append(_cell(table, shots, row))
    blocks: list[tuple[float, list[Row]]] = []
    for name in sorted(set(by_method) | set(printed)):
        rows_ = rows_of(aggregate(by_method.get(name, []), datasets={"clip11": list(KEYS.values())}))
        *single, average = [row for row in rows_ if row["cells"] or row["dataset"] == AVERAGE] or [
            {"cells": 0, "cells_expected": len(KEYS) - (table == TRANSFER)}
        ]
        if average["cells"] < average["cells_expected"] and name in printed:
            average = _printed_average(table, shots, printed[name])
        score = average["accuracy" if table in SINGLE else "h"]
        blocks.append((-score, [{**row, "seeds": ""} for row in [*single, average]]))
    blocks.sort(key=lambda block: (math.isnan(block[0]), block[0]))
    return pd.DataFrame([row for _, block in blocks for row in block], columns=COLUMNS)


def _cell(table: str, shots: int, row: Published) -> Row:
    """A printed dataset row as if it were one cell."""
    single = table in SINGLE
    source = {"source": "imagenet"} if table == TRANSFER else {}
    return source | {
        "suite": "clip11", "backbone": "ViT-B/16", "protocol": table, "setting": "published", "shots": shots,
        "recipe": row.method, "method": row.method, "dataset": row.dataset, "seed": 1,
        "base": math.nan if single else row.base,
        "novel": row.novel, "novel_rule": "", **dict.fromkeys(COST, math.nan), "variant": "", "averaged": "",
        "accuracy": row.base if single else math.nan,
    }  # fmt: skip


def _printed_average(table: str, shots: int, row: Published) -> Row:
    h = row.h if math.isnan(row.base) else harmonic_mean(row.base, row.novel)
    count = len(KEYS) - (table == TRANSFER)
    cells = {"cells": count, "cells_expected": count, "h": h, "h_mean": math.nan}
    spreads = dict.fromkeys(("base_std", "novel_std", "accuracy_std"), math.nan)
    return {**_cell(table, shots, row), **cells, **spreads}


def deviations(table: str) -> list[Deviation]:
    """Printed averages and H that recomputing from the printed rows does not give, beyond what rounding explains."""
    found = []
    rows = read_published(table)
    for shots in sorted({row.shots for row in rows}):
        some = [row for row in rows if row.shots == shots]
        again = {(row["recipe"], row["dataset"]): row for row in rows_of(published_frame(table, shots, some))}
        for row in some:
            own = again[row.method, row.dataset]
            for column, tolerance in (("base", MEAN_TOLERANCE), ("novel", MEAN_TOLERANCE), ("h", H_TOLERANCE)):
                stated = getattr(row, column)
                again_ = own["accuracy"] if table in SINGLE and column == "base" else own[column]
                if abs(again_ - stated) > tolerance + 1e-9:  # false for NaN: nothing is stated
                    name = "value" if table in SINGLE else column
                    found.append(Deviation(table, row.method, row.dataset, name, stated, float(again_)))
    return found


class Erratum(NamedTuple):
    """A known fault of a printed table; `checked` when `deviations` finds it, else it is about what was not stored."""

    table: str
    method: str
    dataset: str
    column: str
    stated: float
    recomputed: float
    checked: bool
    remark: str


def read_errata() -> list[Erratum]:
    """The known errata of `results/published/errata.csv`."""
    with open(published_dir() / "errata.csv", newline="", encoding="utf-8") as file:
        return [_erratum(line) for line in csv.DictReader(file)]


def _erratum(line: Mapping[str, str]) -> Erratum:
    dataset, stated, again = KEYS.get(line["dataset"], line["dataset"]), line["stated"], line["recomputed"]
    head = (line["table"], line["method"], dataset, line["column"])
    return Erratum(*head, float(stated), float(again), line["checked"] == "yes", line["remark"])


def _number(text: str | None) -> float:
    return float(text) if text else math.nan
