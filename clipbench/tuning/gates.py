"""Gates: the rules that make a gate g of scores S, and the scores to begin with.

- `TopK` (MFT, arXiv 2503.22764; the official code's "local" mode): g = 0 at the floor((1 - keep) n) smallest |S| of the
  matrix, ties by index, else 1. Straight-through: dL/dg is taken for dL/d|S|.
- `Threshold` (R-AMT, arXiv 2307.15049): g = 1[S > t]. Straight-through: dL/dg is taken for dL/dS. MFT's "global" mode
  is this rule but for S equal to t.
- `Soft` (ours): g = 2 sigmoid(S), smooth, in (0, 2), exactly 1 at S = 0; gradient by the chain rule.
"""

from __future__ import annotations

import math
from typing import Literal, Protocol

import torch
from torch import Tensor

from clipbench.errors import MethodError
from clipbench.tuning.topk import ExactCut, drop_count

RuleName = Literal["topk_abs", "threshold", "soft"]
ScoreInit = Literal["magnitude", "normal", "kaiming_uniform", "constant"]


class Rule(Protocol):
    """From scores to a gate. One object serves one mask: it may remember where the last cut was.

    Attributes:
        hard: whether the gate is 0 or 1, so that one bit per weight stores it.
        folded: whether the rule sees |S| instead of S.
    """

    hard: bool
    folded: bool

    def gate(self, scores: Tensor) -> Tensor:
        """The gate, of the shape of the scores: bool if hard."""

    def scores_of(self, gate: Tensor) -> Tensor:
        """Scores whose gate is this one (bool)."""

    def distance(self, scores: Tensor) -> float:
        """How far a typical score has to travel to change sides."""


class TopK:
    """Keep all but the floor((1 - keep) n) entries of smallest |S|.

    Args:
        keep: share of the entries that is kept, above 0 and at most 1, taken as the decimal fraction it is written as.
    """

    hard, folded = True, True

    def __init__(self, keep: float) -> None:
        drop_count(keep, 1)  # refuses a ratio that is none
        self.keep = keep
        self._exact: ExactCut | None = None

    def gate(self, scores: Tensor) -> Tensor:
        """False at the dropped entries."""
        drop = drop_count(self.keep, scores.numel())
        if self._exact is None or self._exact.drop != drop:
            self._exact = ExactCut(drop)
        return self._exact.keep(scores.abs())

    def scores_of(self, gate: Tensor) -> Tensor:
        """0.5 where dropped, 1 where kept: at 0 a score has no gradient, and a fit that goes on could not move it.

        Raises:
            MethodError: another number of entries is dropped than the keep ratio says.
        """
        dropped, shown = gate.numel() - int(gate.sum()), drop_count(self.keep, gate.numel())
        if dropped != shown:
            raise MethodError(f"a mask drops {dropped} of {gate.numel()} entries, keep ratio {self.keep} drops {shown}")
        return 0.5 + 0.5 * gate.float()

    def distance(self, scores: Tensor) -> float:
        """The cut: the largest |S| that is dropped (0 where nothing is)."""
        drop = drop_count(self.keep, scores.numel())
        return float(scores.detach().abs().flatten().kthvalue(drop).values) if drop else 0.0


class Threshold:
    """Keep the entries whose score lies above a fixed one.

    Args:
        threshold: t, the score that a kept entry exceeds; any finite number.
    """

    hard, folded = True, False

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def gate(self, scores: Tensor) -> Tensor:
        """S > t."""
        return scores.detach() > self.threshold

    def scores_of(self, gate: Tensor) -> Tensor:
        """The gate as 0 and 1; both around the threshold, where that is not between them."""
        low, high = (0.0, 1.0) if 0 <= self.threshold < 1 else (self.threshold - 1, self.threshold + 1)
        return torch.where(gate, high, low)

    def distance(self, scores: Tensor) -> float:
        """The median of |S - t|."""
        return float((scores.detach() - self.threshold).abs().median())


class Soft:
    """2 sigmoid(S)."""

    hard, folded = False, False

    def gate(self, scores: Tensor) -> Tensor:
        """In (0, 2), with gradient."""
        return 2 * torch.sigmoid(scores)

    def scores_of(self, gate: Tensor) -> Tensor:
        """There are none: a bit does not say how far open a soft gate is."""
        raise MethodError("a soft mask is stored by its scores, not by bits")

    def distance(self, scores: Tensor) -> float:
        """1: from g = 1 to g = 1.46 or 0.54."""
        return 1.0


def make_rule(name: RuleName, keep: float, threshold: float) -> Rule:
    """A rule by name, for one mask.

    Args:
        name: "topk_abs" (`TopK`), "threshold" (`Threshold`) or "soft" (`Soft`).
        keep: share of the entries that "topk_abs" keeps, above 0 and at most 1; the other rules do not read it.
        threshold: score above which "threshold" keeps an entry; the other rules do not read it.

    Raises:
        ConfigError: a keep ratio outside (0, 1].
    """
    if name == "topk_abs":
        return TopK(keep)
    return Threshold(threshold) if name == "threshold" else Soft()


def initial_scores(weight: Tensor, init: ScoreInit, value: float, generator: torch.Generator) -> Tensor:
    """Scores to begin with.

    Args:
        weight: the weight that is masked, (out, in) or any matrix; on the meta device only its shape counts.
        init: how the scores are made. "normal" with standard deviation `value`, what loading a checkpoint makes of the
            scores in MFT's code (0.02); "kaiming_uniform" with a = sqrt 5, its constructor: uniform within
            1 / sqrt(in), `value` unused; "constant" at `value`; "magnitude": value |W| / mean |W|, so that the smallest
            weights go first.
        value: standard deviation, scale or constant, as `init` says.
        generator: random generator on the CPU, from which "normal" and "kaiming_uniform" draw.

    Returns:
        Scores of the shape, dtype and device of the weight.
    """
    if weight.is_meta or init == "constant":
        return torch.full_like(weight, value, requires_grad=False)
    if init == "magnitude":
        size = weight.detach().abs()
        return size * (value / size.mean().clamp_min(torch.finfo(size.dtype).tiny))
    fresh = torch.empty(weight.shape, dtype=weight.dtype)
    if init == "normal":
        fresh.normal_(0, value, generator=generator)
    else:
        bound = 1 / math.sqrt(weight.shape[-1])
        fresh.uniform_(-bound, bound, generator=generator)
    return fresh.to(weight.device)
