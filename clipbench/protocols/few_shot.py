"""Few-shot classification: train on all classes, test on all classes (CoOp, section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence

from clipbench.protocols.base import Protocol


def everything(labels: Sequence[int]) -> tuple[list[int], dict[str, list[int]]]:
    """Train on all classes; test them in one label space."""
    ordered = sorted(labels)
    return ordered, {"all": ordered}


FEW_SHOT = Protocol("few_shot", version=1, divide=everything)
