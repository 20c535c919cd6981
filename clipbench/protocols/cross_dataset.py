"""Cross-dataset transfer: train on all classes of a source, test on other datasets, each among its own classes.

The test images of the source itself are a split of their own, which counts in no average (CoCoOp, section 4.2).
"""

from __future__ import annotations

from collections.abc import Sequence

from clipbench.protocols.base import Protocol

SOURCE = "source"


def everything(labels: Sequence[int]) -> tuple[list[int], dict[str, list[int]]]:
    """Train on all classes of the source; of it, test them in one label space."""
    ordered = sorted(labels)
    return ordered, {SOURCE: ordered}


CROSS_DATASET = Protocol("cross_dataset", version=1, divide=everything, has_targets=True)
