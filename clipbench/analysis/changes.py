"""How far one tensor moved, and what its gradients were on the way; everything is summed in float64.

Source: Li et al., EMNLP 2024 (arXiv 2409.16718), the analysis of CLIPFit: sum of squared differences to the pretrained
value, cosine between gradients of successive steps, sum of squared gradients. Ours: the mean square and the relative
change beside the sum, since sums compare only tensors of one size; and the gradient path, since a tensor with large
gradients moves far whatever it is good for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Change:
    """The change of a tensor.

    Attributes:
        numbers: how many numbers it has.
        sum_squares: sum of squared differences to the reference, the paper's quantity.
        reference_norm: norm of the reference.
    """

    numbers: int
    sum_squares: float
    reference_norm: float

    @property
    def mean_square(self) -> float:
        """Squared difference per number; compares tensors of any size."""
        return self.sum_squares / self.numbers

    @property
    def relative(self) -> float:
        """Norm of the difference over the norm of the reference; nan where that is zero."""
        return math.sqrt(self.sum_squares) / self.reference_norm if self.reference_norm else math.nan


def change(now: Tensor, reference: Tensor) -> Change:
    """How far a tensor is from a reference of the same shape."""
    before = reference.detach().double()
    difference = now.detach().to(before) - before
    return Change(now.numel(), float(difference.square().sum()), float(before.norm()))


class GradientPath:
    """What the gradients of one tensor were, step by step; nothing leaves the device before `read`.

    A gradient that is not finite (a loss scaler skips such a step) or absent (a frozen tensor) counts as none.
    """

    def __init__(self) -> None:
        self._length: Tensor | float = 0.0
        self._squares: Tensor | float = 0.0
        self._cosines: Tensor | float = 0.0
        self._pairs: Tensor | float = 0.0
        self._before: Tensor | None = None

    @torch.no_grad()
    def add(self, gradient: Tensor | None, lr: float) -> None:
        """One step.

        Args:
            gradient: of the loss, before weight decay and momentum.
            lr: the learning rate of the step.
        """
        if gradient is None:
            self._before = None
            return
        here = gradient.detach().double()
        squares = here.square().sum()
        usable = squares.isfinite()
        squares = torch.where(usable, squares, 0.0)
        self._squares = self._squares + squares
        self._length = self._length + lr * squares.sqrt()
        if self._before is not None:
            before = self._before.double()
            norms = squares.sqrt() * before.norm()
            usable = usable & (norms > 0) & norms.isfinite()
            cosine = (here * before).sum() / torch.where(usable, norms, 1.0)
            self._cosines = self._cosines + torch.where(usable, cosine, 0.0)
            self._pairs = self._pairs + usable.double()
        self._before = gradient.detach().clone()

    def read(self) -> dict[str, float]:
        """The sums so far, and the mean cosine since the last reading.

        Returns:
            `path_length`: sum over the steps of lr times the norm of the gradient; `gradient_squares`: sum over the
            steps of its squares; `gradient_cosine`: mean cosine between gradients of successive steps since the last
            reading, nan where there were none.
        """
        pairs = float(self._pairs)
        cosine = float(self._cosines) / pairs if pairs else math.nan
        self._cosines = self._pairs = 0.0
        return {
            "path_length": float(self._length),
            "gradient_squares": float(self._squares),
            "gradient_cosine": cosine,
        }
