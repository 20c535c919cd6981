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

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from clipbench.errors import ConfigError
from clipbench.methods.base import Method
from clipbench.randomness import torch_generator
from clipbench.tuning.adapters import AdaptedLinear, adapter_count
from clipbench.tuning.distillation import Distillation
from clipbench.tuning.linears import NO_BATCHNORM, WrappedLinears
from clipbench.tuning.selection import needs_of

Points = Literal["attn", "mlp", "both"]
LINEARS: dict[Points, str] = {"attn": "attn.out_proj", "mlp": "mlp.proj", "both": "attn.out_proj and mlp.proj"}


class Adapter(Method):
    """Bottleneck adapters.

    Args:
        where: towers and blocks, as the first parts of a selection ("image tower, last 4 blocks").
        points: after the attention ("attn"), after the MLP ("mlp"), or "both".
        n_adapters: adapters in sequence at each point, 1 or more.
        reduction: their hidden width is the tower's width // reduction, at least 1.
        distillation_weight: weight of the distillation from the class features before training; 0: none.
        shared: the arguments of `Method`.
    """

    def __init__(
        self,
        where: Sequence[str] = ("both towers, blocks all",),
        points: Points = "attn",
        n_adapters: int = 2,
        reduction: int = 16,
        distillation_weight: float = 0.0,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        if n_adapters < 1 or reduction < 1:
            raise ConfigError(f"n_adapters and reduction must be 1 or more: {n_adapters=}, {reduction=}")
        self.linears = WrappedLinears(selection(where, points))
        self.n_adapters, self.reduction = n_adapters, reduction
        self.distillation = Distillation(distillation_weight)
        if "image" in self.requires():
            self.exempt = NO_BATCHNORM

    def requires(self) -> Mapping[str, set[str]]:
        """What the selection needs."""
        return needs_of(selection(self.hparams_initial["where"], self.hparams_initial["points"]))

    def build(self) -> dict[str, nn.Parameter]:
        """Put the adapters after every selected Linear."""
        return self.linears.replace(self.backbone, self._adapted)

    def _adapted(self, name: str, linear: nn.Linear) -> AdaptedLinear:
        generator = torch_generator(self.train_seed, f"adapters of {name}")
        return AdaptedLinear(linear, self.n_adapters, self.reduction, generator)

    def num_trainable(self) -> int:
        """n (2 d h + h + d) at every point, with h = d // reduction."""
        widths = [width for _, width in self.linears.sizes.values()]
        return sum(adapter_count(width, self.n_adapters, self.reduction) for width in widths)

    def losses(self, logits: Tensor, labels: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """Cross-entropy, and the distillation where it has a weight."""
        terms = super().losses(logits, labels, classes)
        return terms | self.distillation.terms(classes, self.prompts, self.classnames)


def selection(where: Sequence[str], points: Points) -> list[str]:
    """The Linears after which adapters stand, as sentences.

    Raises:
        ConfigError: `where` is no list.
    """
    if isinstance(where, str):
        raise ConfigError(f"where is a list of towers and blocks, not '{where}'; write ['{where}']")
    return [f"{place}, {LINEARS[points]}" for place in where]
