"""CoCoOp: a context that depends on the image (Zhou et al., CVPR 2022, arXiv 2203.05557).

A small network, Linear-ReLU-Linear with a bottleneck of 1/16, makes one vector of the image's unit feature v; it is
added to every context vector (section 3.2):

    v_m(x) = v_m + h(v),   t_c(x) = text tower of [v_1(x) .. v_M(x), name of c, "."],   logits s v . t_c(x)

with t_c(x) a unit vector, the loss CLIP's cross-entropy. M = 4, starting from the words "a photo of a", which stand for
every dataset. The text tower is run for every image and class, in testing too: for a whole batch in one packed pass, as
many images and classes at a time as `backbone.text.BUDGET` holds.

Official code: KaiyangZhou/CoOp@ff61507 `trainers/cocoop.py`. Differences: fp32 instead of fp16.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipbench.backbone import text
from clipbench.backbone.prompts import PromptPlan
from clipbench.errors import ConfigError
from clipbench.methods.base import Method
from clipbench.tuning.context import Context

REDUCTION = 16


class CoCoOp(Method):
    """CoCoOp.

    Args:
        context_words: initial words, one vector a token.
        shared: the arguments of `Method`.
    """

    interpolates = False
    exempt: Mapping[str, str] = {"check_starts_at_zero_shot": "the network that shifts the context begins at random"}

    def __init__(self, context_words: str = "a photo of a", **shared: Any) -> None:
        super().__init__(**shared)
        if not context_words.strip():
            raise ConfigError("context_words of CoCoOp are empty: it needs words to start from, as 'a photo of a'")
        self.context_words = context_words

    def requires(self) -> Mapping[str, set[str]]:
        """A causal text tower that takes vectors in place of words."""
        return {"text": {"packed"}}

    def build(self) -> dict[str, nn.Parameter]:
        """The context vectors, and the network with PyTorch's initialisation."""
        self.context = Context(Context.from_words(self.backbone, self.context_words))
        features, width = self.backbone.embed_dim, self.backbone.text_width
        self.meta_net = nn.Sequential(
            nn.Linear(features, features // REDUCTION), nn.ReLU(), nn.Linear(features // REDUCTION, width)
        )
        return dict(nn.ModuleDict({"context": self.context, "meta_net": self.meta_net}).named_parameters())

    def num_trainable(self) -> int:
        """M x W, and (D + 1) D / 16 + (D / 16 + 1) W."""
        length = len(self.backbone.tokenize([self.context_words])[0]) - 2
        features, width = self.backbone.embed_dim, self.backbone.text_width
        hidden = features // REDUCTION
        return length * width + (features + 1) * hidden + (hidden + 1) * width

    def class_features(self, classnames: Sequence[str]) -> Any:
        """The prompts of the classes: their features wait for the image."""
        return self.context.kept_plan(self.prompts, classnames)

    def logits(self, features: Tensor, classes: PromptPlan) -> Tensor:  # type: ignore[override]
        """Logits (B, C) of image features (B, D) for the prompts of C classes, each image with its own context.

        Of a long list of classes as many images at a time as the budget holds text features (B, C, D) of.
        """
        each = len(classes) * self.backbone.embed_dim * features.element_size()
        parts = features.split(max(1, text.BUDGET // each))
        return torch.cat([self._logits(part, classes) for part in parts])

    def _logits(self, features: Tensor, classes: PromptPlan) -> Tensor:
        shift = self.meta_net(F.normalize(features, dim=-1))
        context = self.context.vectors + shift.unsqueeze(1)  # (B, M, W)
        return self.backbone.logits(features, self.backbone.encode_text(classes, extra=context))
