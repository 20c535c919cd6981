"""LoRA in the towers of CLIP (Hu et al., ICLR 2022, arXiv 2106.09685; in CLIP: Zanella, Ben Ayed, CVPR-W 2024).

For each selected Linear, W and b frozen:

    y = W x + b + gamma B A dropout(x);   A (r, in) uniform(-1/sqrt(in), 1/sqrt(in)), B (out, r) = 0

with gamma = alpha / r (`plain`) or alpha / sqrt(r) (`rank_stabilised`). Loss: cross-entropy; CLIPFit's distillation as
an option [ours]. Computed through the factors; for inference they are written into the weights.

Recipes:
- `clip_lora`, CLIP-LoRA (arXiv 2405.18541) as its code runs (MaxZanella/CLIP-LoRA@358f0d7 [code]): q, k, v of all
  blocks, r 2, alpha 1, dropout 0.25 with masks of each module's own, 184,320 numbers on ViT-B/16. The code comments
  alpha / r out and uses alpha / sqrt(r); the formula of the paper's text was not readable [unverified]. Unlike the
  code, W is left alone (the code adds gamma B A to it and subtracts it again), and the trained numbers are float32.
- `lora_qv`: q and v with r 8, alpha / r = 1, lr 1e-3, no dropout: the counterpart [ours] of LoRA on `sampling_offsets`
  and `value_proj` of deformable attention (rohrii/MaskDINO-Adapter@c56d763, `ms_deform_attn.py` and `train_lora.sh`
  [code]): where to look and what is read. `lora_qk` is the same on where alone. CLIP has no deformable attention.
- `lora`: CLIP-LoRA's rank, factor, targets and optimiser without dropout [ours], with each data set's template and
  CLIPFit's epochs, as a comparison on equal terms asks for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from clipbench.errors import ConfigError
from clipbench.methods.base import Method
from clipbench.randomness import torch_generator
from clipbench.tuning.distillation import Distillation
from clipbench.tuning.linears import NO_BATCHNORM, WrappedLinears
from clipbench.tuning.low_rank import LowRankLinear, Scaling, gamma_of
from clipbench.tuning.noise import Noise
from clipbench.tuning.optimisation import step_of
from clipbench.tuning.selection import needs_of


class LoRA(Method):
    """LoRA.

    Args:
        train: the Linears that get factors, as sentences (`tuning/selection.py`).
        rank: r, 1 or more.
        alpha: scale of the product, above 0.
        scaling: "plain" (alpha / r) or "rank_stabilised" (alpha / sqrt(r)).
        dropout: probability to drop an entry of the factors' input in training; classes then share no computed prefix.
        distillation_weight: weight of the distillation from the class features before training; 0: none.
        shared: the arguments of `Method`.
    """

    def __init__(
        self,
        train: Sequence[str] = ("both towers, blocks all, attn.q_proj and attn.k_proj and attn.v_proj",),
        rank: int = 2,
        alpha: float = 1.0,
        scaling: Scaling = "rank_stabilised",
        dropout: float = 0.0,
        distillation_weight: float = 0.0,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        if rank < 1 or alpha <= 0 or not 0 <= dropout < 1:
            raise ConfigError(
                f"rank must be 1 or more, alpha above 0, dropout in [0, 1): {rank=}, {alpha=}, {dropout=}"
            )
        self.linears = WrappedLinears(train)
        self.rank, self.dropout, self.gamma = rank, dropout, gamma_of(rank, alpha, scaling)
        self.distillation = Distillation(distillation_weight)
        if "image" in self.requires():
            self.exempt = NO_BATCHNORM

    def requires(self) -> Mapping[str, set[str]]:
        """What the selection needs."""
        return needs_of(self.hparams_initial["train"])

    def build(self) -> dict[str, nn.Parameter]:
        """Put factors beside every selected Linear."""
        self.noise = Noise(self.train_seed, "dropout of low-rank factors")
        return self.linears.replace(self.backbone, self._factors)

    def _factors(self, name: str, linear: nn.Linear) -> LowRankLinear:
        generator = torch_generator(self.train_seed, f"low-rank factors of {name}")
        return LowRankLinear(linear, self.rank, self.gamma, self.dropout, generator, self.noise)

    def num_trainable(self) -> int:
        """r (in + out) for every selected Linear."""
        return sum(self.rank * (inputs + outputs) for inputs, outputs in self.linears.sizes.values())

    def losses(self, logits: Tensor, labels: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """Cross-entropy, and the distillation where it has a weight."""
        terms = super().losses(logits, labels, classes)
        return terms | self.distillation.terms(classes, self.prompts, self.classnames)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """The dropout masks of this step, others for every batch that is accumulated in it."""
        self.noise.begin_step(*step_of(self.trainer, batch_idx))
