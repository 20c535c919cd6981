"""Generalised base to novel: images of both halves among all classes at once, and OpenworldAUC.

The joint accuracies are those of base and of novel images in the label space of all classes. OpenworldAUC is the share
of pairs of a base and a novel image that are both classified rightly inside their half and whose base image has the
higher base-against-novel score; ties count half:

    AUC = sum_b sum_n [b right in its half] [n right in its half] ([s_b > s_n] + [s_b = s_n] / 2) / (N_b N_n)
    s(x) = max over base classes c of p(c | x), p the softmax over all classes, in float64

Source: Hua et al., ICML 2025 (OpenworldAUC, arXiv 2505.05180), huacong/OpenworldAUC@8bb934a `models/GMoP.py` [code].
Difference: the official code gives wrong pairs a sentinel score and so counts pairs that are wrong on both sides as won
where every novel score lies above every base score; here the definition holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from clipbench.data.task import TestSplit
from clipbench.errors import MethodError


@dataclass(frozen=True)
class Pairs:
    """Pairs of a base and a novel image.

    Attributes:
        won: both right, and the base image has the higher score.
        tied: both right, with equal scores.
        total: all pairs.
    """

    won: int
    tied: int
    total: int

    @property
    def auc(self) -> float:
        """OpenworldAUC in percent; NaN where there is no pair."""
        return 100 * (self.won + self.tied / 2) / self.total if self.total else math.nan


def count_pairs(base_right: Tensor, base_scores: Tensor, novel_right: Tensor, novel_scores: Tensor) -> Pairs:
    """The pairs of base and novel images.

    Args:
        base_right: (N_b,) bool, whether a base image is classified rightly among the base classes.
        base_scores: (N_b,) base-against-novel scores.
        novel_right: (N_n,) bool, among the novel classes.
        novel_scores: (N_n,).
    """
    ours, theirs = base_scores[base_right], novel_scores[novel_right].sort().values
    below, not_above = (torch.searchsorted(theirs, ours, right=right) for right in (False, True))
    won, tied = int(below.sum()), int((not_above - below).sum())
    return Pairs(won, tied, len(base_right) * len(novel_right))


class Joint:
    """What one test run measures over both halves at once.

    Args:
        base: the split of the trained classes.
        novel: the split of the new ones.

    Attributes:
        classnames: of both, base first: the joint label space.
    """

    def __init__(self, base: TestSplit, novel: TestSplit) -> None:
        self.classnames = base.classnames + novel.classnames
        self._base, self._first = base, {base.name: 0, novel.name: len(base.classnames)}
        self._seen: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {base.name: [], novel.name: []}

    def update(self, split: TestSplit, inside: Tensor, joint: Tensor, labels: Tensor) -> None:
        """Take a batch of one half.

        Args:
            split: which.
            inside: logits (B, C_half) among its own classes.
            joint: logits (B, C) over all classes.
            labels: (B,) counted inside the half.

        Raises:
            MethodError: an image has logits that are not finite.
        """
        right = inside.argmax(dim=-1) == labels
        joint_right = joint.argmax(dim=-1) == labels + self._first[split.name]
        probabilities = joint.cpu().double().softmax(dim=-1)
        if not torch.isfinite(probabilities).all():
            raise MethodError(
                f"logits of {split.name} images among all {len(self.classnames)} classes are not finite: no accuracy"
            )
        scores = probabilities[:, : len(self._base.classnames)].amax(dim=-1)
        self._seen[split.name].append((right.cpu(), joint_right.cpu(), scores))

    def _of(self, number: int) -> tuple[Tensor, Tensor]:
        """One of the three of all base and of all novel images."""
        base, novel = (torch.cat([batch[number] for batch in batches]) for batches in self._seen.values())
        return base, novel

    def correct(self) -> dict[str, Tensor]:
        """Which images of each half were right over all classes, (N,) bool; none where a half saw no image."""
        if not all(any(len(right) for right, _, _ in batches) for batches in self._seen.values()):
            return {}
        return dict(zip(self._seen, self._of(1), strict=True))

    def pairs(self) -> Pairs:
        """The pairs of OpenworldAUC; none where a half saw no image."""
        if not self.correct():
            return Pairs(0, 0, 0)
        (base_right, novel_right), (base_scores, novel_scores) = self._of(0), self._of(2)
        return count_pairs(base_right, base_scores, novel_right, novel_scores)
