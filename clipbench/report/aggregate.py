"""From cells to leaderboard rows: seeds into datasets, datasets into averages, and H by the rules of the literature.

1. Accuracy of a dataset: mean over its seeds. 2. H of a dataset: harmonic mean of these two means. 3. Average row:
mean of base and of novel over the datasets of the suite; `h` is H of these averages, `h_mean` the mean of the H column.
4. Spread: sample standard deviation (n - 1) over seeds; in the average row, of the seeds' averages over the datasets.
5. A row with missing cells has no average. Costs are means over cells, except `peak_bytes`, the largest.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from clipbench.records.store import Cell
from clipbench.report.cells import COST, JOINT, SOURCE, Row, absent_cells
from clipbench.report.harmonic import harmonic_mean

IDENTITY = ["suite", "backbone", "protocol", "setting", "shots", "recipe"]
COLUMNS = [
    *IDENTITY, "method", "dataset", "seeds", "cells", "cells_expected",
    "base", "novel", "h", "h_mean", "base_std", "novel_std", "novel_rule", *COST,
    "variant", "averaged", "accuracy",
    "joint_base", "joint_novel", "joint_h", "openworld_auc", "validation_free",  # of protocols that have them
]  # fmt: skip
MEASURES = ("base", "novel", "accuracy")
SPREADS = ["accuracy_std", *(f"{name}_std" for name in JOINT)]  # in no CSV
ROW = [*IDENTITY, "variant"]
AVERAGE = "average"
OUTSIDE = "outside the suite"


def aggregate(
    cells: Iterable[Row],
    missing: Iterable[Cell] = (),
    datasets: Mapping[str, Sequence[str]] | None = None,
    over: Sequence[str] | None = None,
    per_seed: bool = False,
) -> pd.DataFrame:
    """The leaderboard: one row per recipe and dataset, one average row per recipe, recipes by H.

    Args:
        cells: rows of `cells_of`, in any order.
        missing: cells that were asked for and have no outcome.
        datasets: by suite, its datasets in order; a suite that is not named has those that occur.
        over: the datasets that are shown and averaged over; None: all.
        per_seed: rows of one seed each, in place of means over seeds; in the order of the means.

    Returns:
        A frame with `COLUMNS`, `SPREADS`, `pretrained`, the published weights that the backbone's file holds,
        `own_data`, whether the suite said of its data what the packaged one does not, and `beside`, why a dataset
        counts in no average (`SOURCE`, or `OUTSIDE` the suite), else ""; of rows per seed also `seed`.
        Empty values are NaN (numbers) or "" (text).
    """
    cells = [dict(row) for row in cells]
    absent = [row for cell in missing for row in absent_cells(cell, (datasets or {}).get(cell.suite, ()))]
    by_row: dict[tuple, list[Row]] = {}
    for cell in sorted(cells + absent, key=lambda cell: (*map(str, _identity(cell)), cell["dataset"], cell["seed"])):
        by_row.setdefault(_identity(cell), []).append(cell)
    blocks: dict[tuple, list[tuple[list[Row], list[Row]]]] = {}  # means, and what is shown
    for identity, members in by_row.items():
        suite = identity[0]
        listed = list((datasets or {}).get(suite, ()))
        same = [cell["dataset"] for cell in cells + absent if cell["suite"] == suite]
        others = sorted(set(same) - set(listed))
        shown, extra = listed or others, listed and others
        if sources := {cell["source"] for cell in members if cell.get("source")}:
            shown, extra = [name for name in shown if name not in sources], sorted({*extra, *sources})
            listed = [name for name in listed if name not in sources]
        if over is not None:
            shown, extra = [name for name in shown if name in over], [name for name in extra if name in over]
            members = [cell for cell in members if cell["dataset"] in over]
        if members:
            stated = f"{len(shown)}/{len(listed or others)}"
            means = _recipe_rows(identity, members, shown, extra, stated)
            rows = [
                {**row, "seed": seed}
                for seed in sorted({cell["seed"] for cell in members})
                for row in _recipe_rows(
                    identity, [cell for cell in members if cell["seed"] == seed], shown, extra, stated
                )
            ] if per_seed else means  # fmt: skip
            blocks.setdefault(identity[:5], []).append((means, rows))
    ordered = [
        row
        for group in sorted(blocks, key=lambda group: (*map(str, group[:4]), int(group[4])))
        for _, rows in sorted(blocks[group], key=lambda block: _rank(block[0]))
        for row in rows
    ]
    more = [*SPREADS, "pretrained", "own_data", "beside", *(["seed"] if per_seed else [])]
    return pd.DataFrame(ordered, columns=[*COLUMNS, *more])


def rows_of(frame: pd.DataFrame) -> list[Row]:
    """The rows of a leaderboard as plain dictionaries."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def label_of(row: Row) -> str:
    """The name of a row: its recipe, its variant where it is not the packaged one, its seed where it is of one."""
    name = f"{row['recipe']} ({row['variant']})" if row.get("variant") else str(row["recipe"])
    return f"{name}, seed {row['seed']}" if "seed" in row else name


def score_of(row: Row) -> float:
    """H, or accuracy where a protocol has one test split."""
    return float(row["h"] if math.isnan(row["accuracy"]) else row["accuracy"])


def grouped(rows: Iterable[Row], columns: Sequence[str]) -> dict[tuple, list[Row]]:
    """Rows by the values of some columns, in the order of their first occurrence."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in columns), []).append(row)
    return groups


def averages_of(rows: Iterable[Row]) -> list[Row]:
    """The average rows among the rows."""
    return [row for row in rows if row["dataset"] == AVERAGE]


def _recipe_rows(identity: tuple, cells: list[Row], datasets: list[str], extra: list[str], stated: str) -> list[Row]:
    """The rows of one recipe: its datasets in order, then the average over `datasets` (never over `extra`).

    The average row says what it is over, as `stated`: `2/11`.
    """
    done = [cell for cell in cells if "method" in cell]
    seeds = sorted({cell["seed"] for cell in cells})
    method = next((cell["method"] for cell in done), "")
    names = {cell.get("pretrained", "") for cell in done}
    pretrained = names.pop() if len(names) == 1 else ""
    own_data = any(cell.get("own_data") for cell in done)
    head = {**dict(zip(ROW, identity, strict=True)), "method": method, "pretrained": pretrained, "own_data": own_data}
    rows = [_dataset_row(head, name, [c for c in done if c["dataset"] == name], seeds) for name in datasets]
    sources = {cell.get("source") for cell in cells}
    more = [
        _dataset_row(head, name, [c for c in done if c["dataset"] == name], seeds)
        | {"beside": SOURCE if name in sources else OUTSIDE}
        for name in extra
    ]
    kept = [cell for cell in done if cell["dataset"] in datasets]
    average = _average_row(head, rows, kept, seeds) | {"averaged": stated}
    return [*({**row, "averaged": ""} for row in rows + [row for row in more if row["cells"]]), average]


def _dataset_row(head: Row, dataset: str, cells: list[Row], seeds: list[int]) -> Row:
    base, novel = _mean(cells, "base"), _mean(cells, "novel")
    spreads = {f"{name}_std": _spread(_values(cells, name)) for name in (*MEASURES, *JOINT)}
    return {
        **head,
        "dataset": dataset,
        "beside": "",
        "seeds": _seeds(cells),
        "cells": len(cells),
        "cells_expected": len(seeds),
        "base": base,
        "novel": novel,
        "h": harmonic_mean(base, novel),
        "h_mean": math.nan,
        "accuracy": _mean(cells, "accuracy"),
        **_joint(cells),
        **spreads,
        "novel_rule": _rule(cells),
        "validation_free": _validation_free(cells),
        **_costs(cells),
    }


def _average_row(head: Row, rows: list[Row], cells: list[Row], seeds: list[int]) -> Row:
    expected = len(rows) * len(seeds)
    complete = bool(rows) and len(cells) == expected
    base, novel, accuracy = (_mean(rows, name) if complete else math.nan for name in MEASURES)
    by_seed = {
        name: [_mean([cell for cell in cells if cell["seed"] == seed], name) for seed in seeds]
        for name in (*MEASURES, *JOINT)
    }
    return {
        **head,
        "dataset": AVERAGE,
        "beside": "",
        "seeds": _seeds(cells),
        "cells": len(cells),
        "cells_expected": expected,
        "base": base,
        "novel": novel,
        "h": harmonic_mean(base, novel),
        "h_mean": _mean(rows, "h") if complete else math.nan,
        "accuracy": accuracy,
        **(_joint(rows) if complete else {}),
        **{f"{name}_std": _spread(values) if complete else math.nan for name, values in by_seed.items()},
        "novel_rule": _rule(cells),
        "validation_free": _validation_free(cells),
        **(_costs(cells) if complete else dict.fromkeys(COST, math.nan)),
    }


def _joint(rows: list[Row]) -> dict[str, float]:
    """The means over rows of what is measured over all classes at once, and H of these means."""
    means = {name: _mean(rows, name) for name in JOINT}
    return {**means, "joint_h": harmonic_mean(means["joint_base"], means["joint_novel"])}


def _rank(rows: list[Row]) -> tuple:
    """Complete recipes by H (by accuracy where there is no H), then the others by what they have; ties by name."""
    average = rows[-1]
    score = score_of(average)
    if not math.isnan(score):
        return (0, -score, 0, label_of(average))
    present = [score_of(row) for row in rows[:-1] if row["cells"]]
    return (1, -average["cells"], -statistics.fmean(present) if present else 0, label_of(average))


def _identity(cell: Row) -> tuple:
    return (*(cell[name] for name in IDENTITY), cell.get("variant", ""))


def _seeds(cells: list[Row]) -> str:
    return ",".join(map(str, sorted({cell["seed"] for cell in cells})))


def _rule(cells: list[Row]) -> str:
    rules = {cell["novel_rule"] for cell in cells}
    return "frozen" if "frozen" in rules else "own" if "own" in rules else ""


def _validation_free(cells: list[Row]) -> str:
    """`true` where every cell is, `false` where one is not, else nothing: some do not say."""
    said = {cell.get("validation_free") for cell in cells}
    return "false" if False in said else "true" if said == {True} else ""


def _values(rows: list[Row], column: str) -> list[float]:
    values = (row.get(column) for row in rows)  # the papers' rows have not all
    return [math.nan if value is None else float(value) for value in values]


def _mean(rows: list[Row], column: str) -> float:
    """NaN without rows or with an unknown value; exact summation, so that the order of files cannot matter."""
    values = _values(rows, column)
    return math.fsum(values) / len(values) if values else math.nan


def _spread(values: list[float]) -> float:
    """Sample standard deviation (n - 1); NaN for fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 and not any(map(math.isnan, values)) else math.nan


def _costs(cells: list[Row]) -> dict[str, float]:
    costs = {name: _mean(cells, name) for name in COST}
    peaks = [value for value in _values(cells, "peak_bytes") if not math.isnan(value)]
    return {**costs, "peak_bytes": max(peaks, default=math.nan)}
