"""Records as rows of one kind: a cell each, or under cross_dataset one for each target."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

from clipbench.records.store import Cell, Record

COST = [
    "trained_parameters", "trained_parameters_end", "share", "stored_bytes", "seconds_per_step", "train_seconds",
    "peak_bytes", "inference_overhead",
]  # fmt: skip
JOINT = ("joint_base", "joint_novel", "openworld_auc")
TRANSFER, SOURCE = "cross_dataset", "source"  # the protocol, and its split of the dataset that was trained on
Row = dict[str, Any]


def cells_of(records: Iterable[Record]) -> list[Row]:
    """One row per record: identity, dataset, seed, accuracies in percent, novel rule, costs.

    A protocol with one test split has `accuracy`; `base`, `novel` and H stay empty, as `accuracy` does elsewhere.
    A record of cross_dataset makes a row for each target and one for its source.
    """
    rows = []
    for record in records:
        if record.cell.protocol == TRANSFER:
            rows += _of_targets(record)
            continue
        splits, single = record.splits, next(iter(record.splits)) if len(record.splits) == 1 else ""
        rows.append(
            {
                **record.cell.as_dict(),
                "variant": record.variant,
                "pretrained": record.provenance.get("pretrained") or "",
                "own_data": "suite_digest" in record.provenance,
                "method": record.method,
                "base": record.accuracy("base") if "base" in splits and not single else math.nan,
                "novel": record.accuracy("novel") if "novel" in splits and not single else math.nan,
                "accuracy": record.accuracy(single) if single else math.nan,
                **(dict.fromkeys(JOINT, math.nan) | record.joint()),
                "novel_rule": splits["novel"]["novel_rule"] if "novel" in splits else "",
                "validation_free": record.validation_free,
                **{name: record.cost.get(name) for name in COST},
            }
        )
    return rows


def _of_targets(record: Record) -> list[Row]:
    """Rows of a record of cross_dataset: `dataset` is the target, or that of the cell, the source."""
    (whole,) = cells_of(
        [dataclasses.replace(record, data=record.data | {"cell": record.data["cell"] | {"protocol": ""}})]
    )
    source = record.cell.dataset
    return [
        whole | {
            "protocol": TRANSFER, "source": source, "dataset": source if name == SOURCE else name,
            "accuracy": record.accuracy(name), "novel_rule": "" if name == SOURCE else split["novel_rule"],
        }
        for name, split in record.splits.items()
    ]  # fmt: skip


def absent_cells(cell: Cell, listed: Sequence[str]) -> list[Row]:
    """Rows of a cell without an outcome: one, or under cross_dataset one for each target of the suite."""
    row = {"variant": "", **cell.as_dict()}
    if cell.protocol != TRANSFER:
        return [row]
    return [row | {"source": cell.dataset, "dataset": name} for name in listed or [cell.dataset]]
