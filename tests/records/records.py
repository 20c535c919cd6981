"""Makes valid records for the tests of store and report; every value can be replaced."""

from __future__ import annotations

import copy
from typing import Any

from clipbench.records.store import SCHEMA, Cell, content_key, pack_bits

CELL = Cell("mini", "dtd", "clipfit", "mini", "base_to_novel", "paper", 16, 1)


def cell(**changes: Any) -> Cell:
    return Cell(**{**CELL.as_dict(), **changes})


def split(correct: int, total: int = 40, **changes: Any) -> dict[str, Any]:
    bits = [index < correct for index in range(total)]
    return {
        "correct": correct, "total": total, "classes": 5, "trained": True, "novel_rule": "own",
        "bitmap": pack_bits(bits), **changes,
    }  # fmt: skip


def joint(
    base: int = 25, novel: int = 15, pairs: tuple[int, int, int] = (500, 0, 1600), total: int = 40
) -> dict[str, Any]:
    """`joint` of a record."""
    halves = {
        name: {"correct": right, "total": total, "bitmap": pack_bits([index < right for index in range(total)])}
        for name, right in (("base", base), ("novel", novel))
    }
    return {"classes": 10, **halves, "pairs": dict(zip(("won", "tied", "total"), pairs, strict=True))}


def record(of: Cell = CELL, base: int = 30, novel: int | None = 20, total: int = 40, **changes: Any) -> dict[str, Any]:
    """A record of status ok; `cost`, `environment` and `provenance` are merged, other changes replace."""
    splits = {"base": split(base, total)}
    if novel is not None:
        splits["novel"] = split(novel, total, trained=False)
    if of.protocol == "few_shot":
        splits = {"all": split(base, total)}
    config = {"model": {"class_path": of.recipe, "init_args": {"lr": 0.002}}, "version": changes.pop("lr", 1)}
    data: dict[str, Any] = {
        "schema": SCHEMA,
        "status": "ok",
        "key": content_key({"cell": of.as_dict(), "config": config}),
        "cell": of.as_dict(),
        "method": {"clipfit": "CLIPFit", "coop": "CoOp"}.get(of.recipe, of.recipe.title()),
        "splits": splits,
        "cost": {
            "trained_parameters": 4608, "trained_parameters_end": 4608, "share": 0.31, "stored_bytes": 0,
            "seconds_per_step": 0.02, "train_seconds": 1.5, "test_seconds": 0.5, "total_seconds": 2.0,
            "peak_bytes": None, "inference_overhead": 0.0,
        },
        "losses": {"cross_entropy": 0.5, "total": 0.5},
        "provenance": {
            "backbone_hash": "b" * 64, "split_hash": "s" * 64, "precision": "32-true",
            "versions": {"data": 1, "backbone": 1, "method": 1, "protocol": 1},
            "variant": {}, "recipe_digest": "r" * 64,
        },
        "environment": {"started": "2026-01-01T00:00:00+00:00", "finished": "2026-01-01T00:00:02+00:00"},
        "config": config,
        "error": None,
    }  # fmt: skip
    for name, value in changes.items():
        merge = name in ("cost", "environment", "provenance")
        data[name] = {**data[name], **value} if merge else value
    return copy.deepcopy(data)


def failed(of: Cell = CELL, message: str = "the loss is not finite at step 3") -> dict[str, Any]:
    return record(of, status="error", splits={}, losses={}, error={"type": "MethodError", "message": message})
