"""What a setting of a probe is chosen by inside a fit: the val draw, or else folds of the train draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

FOLDS = 4

Array = np.ndarray[Any, Any]


def folds_of(labels: Array) -> Array:
    """The fold of each image, (N,): the k-th of its class is in fold k mod n, n the smallest class but at most 4."""
    rank = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[members] = np.arange(len(members))
    return rank % min(FOLDS, int(np.bincount(labels).min()))


@dataclass(frozen=True)
class HeldOut:
    """The images that a setting is chosen by.

    Attributes:
        by: what they are, for the record.
        total: how many; 0 where there are none, so that nothing can be chosen.
        folds: of each, which train images are held out, (N,) bool; none where the val draw is there.
    """

    by: str
    total: int
    folds: tuple[Array, ...] = ()

    @classmethod
    def of(cls, labels: Array, val: int) -> HeldOut:
        """Those of a fit.

        Args:
            labels: (N,), of the train draw.
            val: how many images the val draw has.
        """
        if val:
            return cls("val draw", val)
        fold = folds_of(labels)
        count = int(fold.max()) + 1
        if count == 1:
            return cls("nothing: one image in a class and no val draw", 0)
        by = f"cross-validation with {count} folds inside the train draw"
        return cls(by, len(labels), tuple(fold == number for number in range(count)))

    def diagnostics(self, correct: int = 0) -> dict[str, Any]:
        """For the record, with how many of them are right by what was chosen."""
        if not self.total:
            return {"chosen_by": self.by}
        accuracy = 100 * correct / self.total
        return {"chosen_by": self.by, "correct": correct, "total": self.total, "val_accuracy": accuracy}
