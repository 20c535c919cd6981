"""The end state of a fit, from its learned weights: how far everything that it changed is from where it began."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipbench.analysis.recorder import changes_of, row_of
from clipbench.methods.base import Method


def final_rows(path: Path) -> list[dict[str, Any]]:
    """One row per tensor, by the columns of `ChangeRecorder` without those of steps and gradients.

    Raises:
        MethodError: no learned weights, or their method is not installed, or it belongs to another backbone.
    """
    method = Method.load(path)
    assert method.header is not None
    source: Method = getattr(method, "inner", method)  # WiSE-FT holds the method that it comes from
    fresh = type(source)(**dict(source.hparams))
    fresh.setup(task=method.header.task, train_seed=method.header.train_seed)
    in_backbone = fresh.backbone.changed_tensors()
    begin = {name: p.detach() for name, p in fresh.trainable.items() if name not in in_backbone}
    facts = {"dataset": method.header.dataset, "seed": method.header.train_seed}
    return [facts | row_of(name, found, name in begin) for name, found in changes_of(method, begin)]
