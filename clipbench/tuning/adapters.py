"""Bottleneck adapters in a block, in sequence after a Linear that writes to the residual stream.

    y_0 = s ;  y_i = y_{i-1} + Up_i(ReLU(Down_i(y_{i-1}))),  i = 1 .. n ;  the stream gets y_n instead of s

where s is the output of `attn.out_proj` or `mlp.proj`. The module is that of Houlsby et al. (ICML 2019) in Pfeiffer's
form, as stacked by Abou Baker et al. (MAKE 2024); the sum is ours: their code adds the residual stream to every y_i,
which in CLIP's pre-norm blocks would double the stream at each insertion, even untrained.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from clipbench.errors import ConfigError

STD = 0.02


class Bottleneck(nn.Module):
    """x + Up(ReLU(Down x)).

    Args:
        width: d, the number of features of x.
        hidden: number of features of the bottleneck between Down and Up.
        like: a tensor whose dtype and device the new tensors take.
        generator: random generator on the CPU that draws Down's weight from normal(0, 0.02); None leaves it at zero,
            for towers without weights or adapters that will be loaded.

    Attributes:
        down: Linear d -> hidden, bias zero at the start.
        up: Linear hidden -> d, weight and bias zero at the start, so that the module is the identity, bit for bit.
    """

    def __init__(self, width: int, hidden: int, like: Tensor, generator: torch.Generator | None = None) -> None:
        super().__init__()
        weight = torch.zeros(hidden, width, dtype=like.dtype)
        if generator is not None:
            weight.normal_(0, STD, generator=generator)
        self.down, self.up = nn.Linear(width, hidden, device="meta"), nn.Linear(hidden, width, device="meta")
        self.down.weight = nn.Parameter(weight.to(like.device))
        self.down.bias = nn.Parameter(like.new_zeros(hidden))
        self.up.weight = nn.Parameter(like.new_zeros(width, hidden))
        self.up.bias = nn.Parameter(like.new_zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) to (..., d)."""
        return cast(Tensor, x + self.up(torch.relu(self.down(x))))


class AdaptedLinear(nn.Module):
    """A frozen Linear followed by n bottlenecks in sequence.

    Args:
        linear: the Linear whose output the bottlenecks adapt; it stays frozen, bit for bit.
        n: number of bottlenecks in sequence, 1 or more.
        reduction: how many times narrower than the Linear's output d a bottleneck is, 1 or more: it has d // reduction
            features, at least 1.
        generator: random generator on the CPU that draws the weights of every Down; None leaves them at zero.

    Raises:
        ConfigError: n or reduction below 1.
    """

    def __init__(self, linear: nn.Linear, n: int, reduction: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if n < 1 or reduction < 1:
            raise ConfigError(f"adapters: n and reduction must be 1 or more, they are {n} and {reduction}")
        self.linear = linear
        width = linear.out_features
        hidden = hidden_width(width, reduction)
        self.adapters = nn.ModuleList(Bottleneck(width, hidden, linear.weight, generator) for _ in range(n))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., d)."""
        y: Tensor = self.linear(x)
        for adapter in self.adapters:
            y = adapter(y)
        return y

    @torch.no_grad()
    def interpolate(self, alpha: float) -> None:
        """Make what every bottleneck adds alpha times what it is (of its input: exact throughout for n = 1)."""
        for adapter in self.adapters:
            up = cast(Bottleneck, adapter).up
            up.weight.mul_(alpha)
            up.bias.mul_(alpha)


def hidden_width(width: int, reduction: int) -> int:
    """Width of a bottleneck: d // reduction, at least 1."""
    return max(1, width // reduction)


def adapter_count(width: int, n: int, reduction: int) -> int:
    """Numbers in n bottlenecks: each two matrices d x h and the biases h and d."""
    hidden = hidden_width(width, reduction)
    return n * (2 * width * hidden + hidden + width)
