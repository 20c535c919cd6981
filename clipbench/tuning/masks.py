"""Masks: a learned gate on every entry of a frozen weight; the weight itself never changes.

A mask is scores S, of the weight's shape, and a rule (`gates.py`) that makes a gate g of them; the layer computes with
W * g, its bias is untouched. The gradient of the scores, straight-through where the gate is hard:

    dL/dS = sign(S) W dL/d(W g)   where the rule sees |S|, with sign(0) = 0
    dL/dS = W dL/d(W g)           where it sees S

for all entries, also those where g = 0 (MFT, arXiv 2503.22764; R-AMT, arXiv 2307.15049).
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipbench.backbone.state import state_of
from clipbench.backbone.transformer import Frozen
from clipbench.errors import MethodError
from clipbench.tuning.gates import Rule


class StraightThrough(torch.autograd.Function):
    """W * g for a gate that has no derivative: the scores get the gradient as if the gate were |S|, or S."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scores: Tensor, gate: Tensor, folded: bool, alpha: float) -> Tensor:
        """(out, in) weight, scores and gate to the weight that is computed with."""
        ctx.save_for_backward(weight, scores, gate)
        ctx.folded, ctx.alpha = folded, alpha
        return weight * gate

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        """To the weight through the gate; to the scores sign(S) W dL/d(W g), or W dL/d(W g)."""
        weight, scores, gate = ctx.saved_tensors
        (grad,) = outer
        to_weight = grad * gate if ctx.needs_input_grad[0] else None
        to_scores = None
        if ctx.needs_input_grad[1]:
            to_scores = grad * weight if ctx.alpha == 1 else ctx.alpha * grad * weight
            if ctx.folded:
                to_scores = to_scores * scores.sign().to(weight.dtype)  # 0 at 0, as the derivative of |S| is in torch
        return to_weight, to_scores, None, None, None


class Mask(Frozen):
    """A mask over one weight; `mask(weight)` is the weight to compute with.

    The masked weight is formed once for as long as scores and weight stay the same: a tower that runs several times in
    a step shares it, and the gate is sought only after the scores have moved.

    Args:
        scores: start values of the trained scores S, of the weight's shape.
        rule: the rule that makes the gate of the scores; it serves this mask alone.
    """

    def __init__(self, scores: Tensor, rule: Rule) -> None:
        super().__init__()
        self.scores = nn.Parameter(scores)
        self.rule = rule
        self.alpha = 1.0
        self._sought: tuple[Any, Tensor] | None = None
        self._formed: tuple[Any, Tensor] | None = None
        self.eval()

    def gate(self) -> Tensor:
        """The rule's gate for the scores as they are now, without the factor of `interpolate`."""
        if not self.rule.hard:
            return self.rule.gate(self.scores)
        now = state_of([self.scores])
        if self._sought is None or self._sought[0] != now:
            with torch.inference_mode(False), torch.no_grad():  # a later step may need it in its graph
                self._sought = (now, self.rule.gate(self.scores))
        return self._sought[1]

    def forward(self, weight: Tensor) -> Tensor:
        """W * g, of the weight's shape."""
        learns = torch.is_grad_enabled() and (self.scores.requires_grad or weight.requires_grad)
        now = (state_of([weight, self.scores]), self.alpha, learns)
        if self._formed is None or self._formed[0] != now:
            self._formed = None
            if learns:
                formed = self._form(weight)
                formed.register_hook(_clearing(self))  # its graph is good for one backward pass
            else:
                with torch.inference_mode(False), torch.no_grad():
                    formed = self._form(weight)
            self._formed = (now, formed)
        return self._formed[1]

    def _form(self, weight: Tensor) -> Tensor:
        gate = self.gate()
        if self.alpha != 1:  # exactly 1 where the gate is
            gate = 1 - self.alpha * (1 - gate.to(weight.dtype))
        if not self.rule.hard:
            return weight * gate
        if gate.dtype == torch.bool:
            gate = gate.view(torch.uint8)  # the same bits; torch multiplies by them twice as fast
        formed: Tensor = StraightThrough.apply(weight, self.scores, gate, self.rule.folded, self.alpha)
        return formed

    def interpolate(self, alpha: float) -> None:
        """Go back towards the weight without a mask: W (1 - alpha + alpha g), on top of earlier calls."""
        self.alpha *= alpha

    def clear_cache(self) -> None:
        """Let go of the weight that was formed."""
        self._formed = None

    def __getstate__(self) -> dict[str, Any]:
        # what was formed may be part of a graph, which can be neither copied nor pickled
        return self.__dict__ | {"_formed": None, "_sought": None}

    @torch.no_grad()
    def kept(self) -> float:
        """Share of the entries that are kept; of a soft gate the mean."""
        gate = self.gate()
        return int(gate.sum()) / gate.numel() if self.rule.hard else float(gate.mean())


def _clearing(mask: Mask) -> Callable[[Tensor], None]:
    there = weakref.ref(mask)

    def clear(_: Tensor) -> None:
        found = there()
        if found is not None:
            found.clear_cache()

    return clear


class MaskedLinear(Frozen):
    """A frozen Linear whose weight is seen through a mask; the bias never is.

    Args:
        linear: the Linear whose weight is masked; it stays frozen, bit for bit.
        mask: the mask over that weight, with scores of its shape (out, in).
    """

    def __init__(self, linear: nn.Linear, mask: Mask) -> None:
        super().__init__()
        self.linear = linear
        self.mask = mask
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return F.linear(x, self.mask(self.linear.weight), self.linear.bias)

    def merged(self) -> nn.Linear:
        """A plain Linear with W * g as its weight."""
        rows, columns = self.linear.weight.shape
        plain = nn.Linear(columns, rows, bias=self.linear.bias is not None, device="meta")
        with torch.no_grad():
            plain.weight = nn.Parameter(self.mask(self.linear.weight).detach(), requires_grad=False)
        if self.linear.bias is not None:
            plain.bias = nn.Parameter(self.linear.bias.detach(), requires_grad=False)
        return plain

    def interpolate(self, alpha: float) -> None:
        """Go back towards the frozen Linear by 1 - alpha."""
        self.mask.interpolate(alpha)


def pack(gate: Tensor) -> Tensor:
    """One bit per entry of a bool tensor: (ceil(n / 8),) uint8, the first entry in the highest bit."""
    if gate.is_meta:
        return torch.empty(-(-gate.numel() // 8), dtype=torch.uint8, device="meta")
    return torch.from_numpy(np.packbits(gate.detach().cpu().numpy()))


def unpack(bits: Tensor, shape: torch.Size) -> Tensor:
    """The bool tensor of that shape that was packed.

    Raises:
        MethodError: another number of bytes than the shape has.
    """
    count = math.prod(shape)
    if bits.dtype != torch.uint8 or bits.shape != (-(-count // 8),):
        shown = f"{bits.dtype} of shape {tuple(bits.shape)}"
        raise MethodError(f"a mask of {count} entries is {-(-count // 8)} bytes, not {shown}")
    return torch.from_numpy(np.unpackbits(bits.cpu().numpy(), count=count).astype(bool)).view(shape)
