"""Low-rank factors around a frozen Linear (LoRA: Hu et al., ICLR 2022, arXiv 2106.09685).

    y = W x + b + gamma B A dropout(x),   A (r, in) uniform, B (out, r) zero at the start

computed through the factors: neither forward nor backward forms a matrix of W's shape. With `merged` the product is
written into the weight once, for inference; W itself is never touched.
"""

from __future__ import annotations

import math
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from clipbench.errors import ConfigError
from clipbench.tuning.noise import Noise

Scaling = Literal["plain", "rank_stabilised"]


def gamma_of(rank: int, alpha: float, scaling: Scaling) -> float:
    """The factor of the product: alpha / r, or alpha / sqrt(r).

    Source: Hu et al. (plain); Kalajdzievski, arXiv 2312.03732 (rank-stabilised).
    """
    return alpha / (rank if scaling == "plain" else math.sqrt(rank))


def keep_mask(like: Tensor, dropout: float, generator: torch.Generator) -> Tensor:
    """Which entries a dropout keeps: (..., in) bool, each True with probability 1 - dropout.

    One random byte an entry decides where the probability is a multiple of 1/256, else 32 random bits do: the law of
    nn.Dropout, not its draws, at a fraction of the time.
    """
    entries = like.numel()
    exact = float(dropout * 256).is_integer()
    kind, low, levels = (torch.uint8, 0, 2**8) if exact else (torch.int32, -(2**31), 2**32)
    words = torch.empty(-(-entries * (1 if exact else 4) // 8), dtype=torch.int64, device=like.device)
    words.random_(-(2**63), None, generator=generator)
    return (words.view(kind)[:entries] >= low + round(dropout * levels)).view(like.shape)


class _AddLowRank(torch.autograd.Function):
    """y + scale B A (x * kept); keeps x, which its neighbours share, and the mask, not their product.

    With u = A (x * kept), g = dL/dy and v = scale B^T g:
    dL/dB = scale g u^T, dL/dA = v (x * kept)^T, dL/dx = (A^T v) * kept, dL/dy = g.
    The narrow products are written so that their long side is contiguous: ten times faster on a CPU.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, y: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float, kept: Tensor | None
    ) -> Tensor:
        with torch.autocast(y.device.type, enabled=False):
            u = _rows(_masked(x, kept)).to(y.dtype) @ a.to(y.dtype).T
            out = torch.addmm(_rows(y), u, b.to(y.dtype).T, alpha=scale)
        ctx.save_for_backward(x, a, b, kept, u)
        ctx.scale = scale
        return out.view(y.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, a, b, kept, u = ctx.saved_tensors
        _, wants_x, wants_a, wants_b, *_ = ctx.needs_input_grad
        grad_x = grad_a = grad_b = None
        with torch.autocast(g.device.type, enabled=False):
            rows = g.reshape(-1, g.shape[-1])
            if wants_b:
                grad_b = (u.T @ rows).mul_(ctx.scale).to(b.dtype).T.contiguous()
            if wants_x or wants_a:
                v = (rows @ b.to(g.dtype).T.contiguous().T).mul_(ctx.scale)
                if wants_a:
                    grad_a = (v.T @ _rows(_masked(x, kept)).to(g.dtype)).to(a.dtype)
                if wants_x:
                    grad_x = _masked((v @ a.to(g.dtype)).view(x.shape), kept).to(x.dtype)
        return g, grad_x, grad_a, grad_b, None, None


def _masked(x: Tensor, kept: Tensor | None) -> Tensor:
    return x if kept is None else x * kept


def _rows(x: Tensor) -> Tensor:
    """(..., D) as (N, D)."""
    return x.flatten(0, -2) if x.ndim > 1 else x[None]


class LowRankLinear(nn.Module):
    """A frozen Linear with trained low-rank factors beside it.

    Args:
        linear: the Linear that the factors stand beside; it stays frozen, bit for bit.
        rank: r, the inner dimension of B A, from 1 to the smaller side of the Linear's weight.
        gamma: the factor that B A is multiplied by (`gamma_of`).
        dropout: probability, from 0 to below 1, that an entry of x is dropped, in the low-rank branch alone and in
            training alone.
        generator: random generator on the CPU that draws A; None leaves A at zero, for a Linear without weights (on the
            meta device) or factors that will be loaded.
        noise: source of the dropout masks, needed where `dropout` is above 0; modules that share one draw one after the
            other, so that their masks are independent.

    Attributes:
        A: (r, in), uniform(-1/sqrt(in), 1/sqrt(in)) at the start (Kaiming-uniform with a = sqrt(5)).
        B: (out, r), zero at the start, so that the outputs are those of the Linear, bit for bit.
        stochastic: whether training is random; the text tower then computes a shared prefix per class.

    Raises:
        ConfigError: a rank, dropout or noise that cannot be.
    """

    def __init__(
        self,
        linear: nn.Linear,
        rank: int,
        gamma: float,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
        noise: Noise | None = None,
    ) -> None:
        super().__init__()
        smaller = min(linear.in_features, linear.out_features)
        if not 1 <= rank <= smaller:
            raise ConfigError(f"rank must lie between 1 and {smaller}, the smaller side of the Linear; it is {rank}")
        if not 0 <= dropout < 1:
            raise ConfigError(f"dropout must be at least 0 and below 1, it is {dropout}")
        if dropout > 0 and noise is None:
            raise ConfigError("dropout in low-rank factors needs a source of noise")
        self.linear, self.gamma, self.dropout, self.noise = linear, gamma, dropout, noise
        weight = linear.weight
        a = torch.zeros(rank, linear.in_features, dtype=weight.dtype)
        if generator is not None:
            bound = 1 / math.sqrt(linear.in_features)
            a.uniform_(-bound, bound, generator=generator)
        self.A = nn.Parameter(a.to(weight.device))
        self.B = nn.Parameter(weight.new_zeros(linear.out_features, rank))

    @property
    def stochastic(self) -> bool:
        """Whether training draws noise."""
        return self.dropout > 0

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        y = self.linear(x)
        if self.noise is None or not (self.training and self.dropout > 0):
            return cast(Tensor, _AddLowRank.apply(y, x, self.A, self.B, self.gamma, None))
        kept = keep_mask(x, self.dropout, self.noise.generator(x.device))
        return cast(Tensor, _AddLowRank.apply(y, x, self.A, self.B, self.gamma / (1 - self.dropout), kept))

    def merged(self) -> nn.Linear:
        """A plain Linear with the weight W + gamma B A."""
        linear, weight = self.linear, self.linear.weight
        with torch.no_grad():
            out = nn.Linear(linear.in_features, linear.out_features, linear.bias is not None, "meta", weight.dtype)
            out.weight = nn.Parameter(torch.addmm(weight, self.B, self.A, alpha=self.gamma))
            if linear.bias is not None:
                out.bias = nn.Parameter(linear.bias.detach().clone())
        return out

    @torch.no_grad()
    def interpolate(self, alpha: float) -> None:
        """Make the change of the weight alpha times what it is: gamma B A is linear in B."""
        self.B.mul_(alpha)
