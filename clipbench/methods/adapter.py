"""Bottleneck adapters in the blocks of CLIP [ours, after Abou Baker et al., MAKE 2024, doi 10.3390/make6040133].

After the attention and/or the MLP of a block, n adapters in sequence, before the residual addition:

    y_0 = s;   y_i = y_{i-1} + Up_i(ReLU(Down_i(y_{i-1}))),  i = 1 .. n;   h <- h + y_n

with s what the attention or the MLP adds to the stream h, Down d -> d // reduction, Up back to d, both with biases; Up
is zero at the start, so that the untrained model is zero-shot, bit for bit. Loss: cross-entropy; distillation optional.

What is whose:
- The module (ReLU, normal(0, 0.02), biases zero, no norm, no gate), and n modules stacked at each point: the paper's
  code (rohrii/SEEM-Adapter@48048a6, rohrii/MaskDINO-Adapter@c56d763 [code]); "n adapters per block" means this there.
- The sum is ours. Their code adds the stream to every x_i and once more outside, so an untrained adapter doubles the
  stream; their post-norm network repairs that by training, CLIP's pre-norm blocks would not.
- After the attention alone, n 2, reduction 16, AdamW 1e-3 [code: SEEM's tiny configuration]; weight decay 0.01 instead
  of 0.05, cosine per step, batch 32 and CLIPFit's epochs [ours]. 2,588,544 numbers on ViT-B/16.
- In their models adapters stand in decoders alone and heads are trained as well; in CLIP they stand in the towers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from clipbench.errors import ConfigError
from clipbench.methods.linear_tuning import LinearTuning
from clipbench.tuning.adapters import AdaptedLinear, adapter_count

Points = Literal["attn", "mlp", "both"]
LINEARS: dict[Points, str] = {"attn": "attn.out_proj", "mlp": "mlp.proj", "both": "attn.out_proj and mlp.proj"}


class Adapter(LinearTuning):
    """Bottleneck adapters.

    Args:
        where: towers and blocks, as the first parts of a selection ("image tower, last 4 blocks").
        points: after the attention (attn), after the MLP (mlp), or both.
        n: adapters in sequence at each point.
        reduction: their hidden width is the tower's width // reduction, at least 1.
        shared: the arguments of `TowerTuning`.
    """

    def __init__(
        self,
        where: Sequence[str] = ("both towers, blocks all",),
        points: Points = "attn",
        n: int = 2,
        reduction: int = 16,
        **shared: Any,
    ) -> None:
        if isinstance(where, str):
            raise ConfigError(f"where is a list of towers and blocks, not '{where}'; write ['{where}']")
        if n < 1 or reduction < 1:
            raise ConfigError(f"n and reduction must be 1 or more: {n=}, {reduction=}")
        self.selection = tuple(f"{place}, {LINEARS[points]}" for place in where)
        super().__init__(**shared)
        self.n, self.reduction = n, reduction

    def build(self) -> dict[str, nn.Parameter]:
        """Put the adapters after every selected Linear."""
        return self.surround(
            lambda name, linear: AdaptedLinear(
                linear, self.n, self.reduction, self.train_generator(f"adapters of {name}")
            )
        )

    def trained_count(self) -> int:
        """n (2 d h + h + d) at every point, with h = d // reduction."""
        return sum(adapter_count(width, self.n, self.reduction) for _, width in self.sizes.values())
