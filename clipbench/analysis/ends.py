"""The end state of a fit, from its deliverable: how far everything that it changed is from where it began."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipbench.analysis.recorder import changes_of, row_of
from clipbench.methods.deliverable import load_into, method_of, read_header


def end_rows(path: Path) -> list[dict[str, Any]]:
    """One row per tensor, by the columns of `ChangeRecorder` without those of steps and gradients.

    Raises:
        MethodError: not a deliverable, its method is not installed, or it belongs to another backbone.
    """
    header = read_header(path)
    method = method_of(header, path)
    try:
        method.configure_model()
        in_backbone = method.backbone.changed_tensors()
        begin = {name: p.detach().clone() for name, p in method.built().items() if name not in in_backbone}
        load_into(method, path)
        facts = {"dataset": header.dataset, "seed": header.train_seed}
        return [facts | row_of(name, found, name in begin) for name, found in changes_of(method, begin)]
    finally:
        method.release()
