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

from collections.abc import Sequence
from typing import Any

from torch import nn

from clipbench.errors import ConfigError
from clipbench.methods.linear_tuning import LinearTuning
from clipbench.tuning.low_rank import LowRankLinear, Scaling, gamma_of
from clipbench.tuning.noise import Noise


class LoRA(LinearTuning):
    """LoRA.

    Args:
        train: the Linears that get factors, as sentences.
        rank: r.
        alpha: scale of the product.
        scaling: plain (alpha / r) or rank_stabilised (alpha / sqrt(r)).
        dropout: on the input of the factors, in training; while it is on, classes share no computed prefix.
        shared: the arguments of `TowerTuning`.
    """

    def __init__(
        self,
        train: Sequence[str] = ("both towers, blocks all, attn.q_proj and attn.k_proj and attn.v_proj",),
        rank: int = 2,
        alpha: float = 1.0,
        scaling: Scaling = "rank_stabilised",
        dropout: float = 0.0,
        **shared: Any,
    ) -> None:
        self.selection = train if isinstance(train, str) else tuple(train)  # type: ignore[assignment]
        super().__init__(**shared)
        if rank < 1 or alpha <= 0 or not 0 <= dropout < 1:
            raise ConfigError(
                f"rank must be 1 or more, alpha above 0, dropout in [0, 1): {rank=}, {alpha=}, {dropout=}"
            )
        self.rank, self.alpha, self.dropout = rank, alpha, dropout
        self.scaling: Scaling = scaling

    def build(self) -> dict[str, nn.Parameter]:
        """Put factors beside every selected Linear."""
        self.noise = Noise(self.train_seed, "dropout of low-rank factors")
        return self.surround(self._factors)

    def _factors(self, name: str, linear: nn.Linear) -> LowRankLinear:
        gamma = gamma_of(self.rank, self.alpha, self.scaling)
        generator = self.train_generator(f"low-rank factors of {name}")
        return LowRankLinear(linear, self.rank, gamma, self.dropout, generator, self.noise)

    def trained_count(self) -> int:
        """r (in + out) for every selected Linear."""
        return sum(self.rank * (inputs + outputs) for inputs, outputs in self.sizes.values())

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """The dropout masks of this step, others for every batch that is accumulated in it."""
        self.noise.begin_step(*self.step_of_noise(batch_idx))
