"""Base to novel: train on the first half of the classes, test each half within its own label space.

Base = the first ceil(C / 2) labels, novel = the rest (KaiyangZhou/CoOp@ff61507 `subsample_classes`; CoCoOp, 4.1).
"""

from __future__ import annotations

from collections.abc import Sequence

from clipbench.protocols.base import Protocol


def halves(labels: Sequence[int]) -> tuple[list[int], dict[str, list[int]]]:
    """Train on base; test base and novel."""
    ordered = sorted(labels)
    middle = (len(ordered) + 1) // 2
    base, novel = ordered[:middle], ordered[middle:]
    return base, {"base": base, "novel": novel}


BASE_TO_NOVEL = Protocol("base_to_novel", version=1, divide=halves)
