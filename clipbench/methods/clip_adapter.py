"""CLIP-Adapter: a bottleneck on the image feature, mixed with it (Gao et al., IJCV 2024, arXiv 2110.04544).

    A(v) = ReLU(W2 ReLU(W1 v)),  W1 (D / 4, D), W2 (D, D / 4), without biases
    v' = 0.2 A(v) + 0.8 v

with v the frozen image tower's feature, not normalised; logits and cross-entropy are CLIP's own on v' (section 3.2).
The text side stays as it is: the paper's second adapter is not in the released code. No tensor belongs to a class, so
base and novel classes are answered alike.

Official code: gaopengcuhk/CLIP-Adapter@08d07f8 `clip_adapter.py`; its width of 1024 is that of RN50, here it follows
the backbone. It names no training settings: those of base-to-novel are of its re-run by DePT's authors, whose released
folder does not hold them (see the recipe).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from clipbench.errors import ConfigError
from clipbench.methods.base import Method


class CLIPAdapter(Method):
    """CLIP-Adapter.

    Args:
        ratio: share of the adapter's output, from 0 to 1.
        reduction: width of the feature over that of the bottleneck.
        shared: the arguments of `Method`.
    """

    interpolates = False
    exempt: Mapping[str, str] = {
        "check_starts_at_zero_shot": "the adapter begins with random weights and adds to the feature from the start"
    }

    def __init__(self, ratio: float = 0.2, reduction: int = 4, **shared: Any) -> None:
        super().__init__(**shared)
        if not 0 < ratio <= 1 or reduction < 1:
            raise ConfigError(f"CLIPAdapter needs ratio in (0, 1] and reduction 1 or more: {ratio=}, {reduction=}")
        self.ratio, self.reduction = ratio, reduction

    def build(self) -> dict[str, nn.Parameter]:
        """Two Linears with torch's own initial weights."""
        width = self.backbone.embed_dim
        inner = self._bottleneck()
        self.adapter = nn.Sequential(
            nn.Linear(width, inner, bias=False), nn.ReLU(), nn.Linear(inner, width, bias=False), nn.ReLU()
        )
        return {f"adapter.{name}": parameter for name, parameter in self.adapter.named_parameters()}

    def _bottleneck(self) -> int:
        inner = self.backbone.embed_dim // self.reduction
        if inner < 1:
            raise ConfigError(f"reduction {self.reduction} leaves nothing of {self.backbone.embed_dim} features")
        return inner

    def num_trainable(self) -> int:
        """2 D (D / reduction)."""
        return 2 * self.backbone.embed_dim * self._bottleneck()

    def image_features(self, images: Tensor) -> Tensor:
        """The mixed features (B, D)."""
        features = self.backbone.encode_image(images)
        mixed: Tensor = self.ratio * self.adapter(features) + (1 - self.ratio) * features
        return mixed
