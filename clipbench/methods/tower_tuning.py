"""The base of the strategies that change the towers and nothing else: prompts stay, both features come from the towers.

A subclass says what it trains (`build`) and how many numbers that is (`trained_count`). Loss:

    L = CE(s v . t_c, y) + lambda (1 - mean_c cos(t_c, t0_c))

where the second term is CLIPFit's distillation from the class features t0_c before training; lambda 0 leaves it out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clipbench.errors import ConfigError
from clipbench.methods.base import Method


def distillation(features: Tensor, teacher: Tensor) -> Tensor:
    """1 - mean_c cos(t_c, t0_c): how far the class features (C, D) turned from the teacher's (C, D)."""
    return 1 - F.cosine_similarity(features.float(), teacher.float(), dim=-1).mean()


class TowerTuning(Method):
    """A strategy that changes the towers.

    Args:
        distillation_weight: lambda; 0 leaves the distillation out.
        start: a deliverable (or a recipe, which the bench runs first) whose weights are where this method begins;
            null: the pretrained ones.
        shared: the arguments of `Method`.
    """

    def __init__(self, distillation_weight: float = 0.0, start: str | None = None, **shared: Any) -> None:
        super().__init__(**shared)
        if distillation_weight < 0:
            raise ConfigError(f"distillation_weight must not be below 0, it is {distillation_weight}")
        self.distillation_weight = distillation_weight
        self.start = start
        if start is not None:
            self.starts_at_zero_shot = False

    def start_weights(self) -> dict[str, Tensor]:
        """The weights that `start` learned.

        Raises:
            ConfigError: `start` is no file.
            MethodError: what it learned is not in the weights alone, or belongs to another backbone.
        """
        if self.start is None:
            return {}
        from clipbench.methods.start import learned_weights

        return learned_weights(Path(self.start), self.backbone)

    @classmethod
    def loading_arguments(cls, init_args: Mapping[str, Any]) -> dict[str, Any]:
        """Without `start`: a deliverable holds the weights that it began from."""
        return {**init_args, "start": None}

    def class_features(self, classnames: Sequence[str]) -> Tensor:
        """The text tower as it is now on the prompts, (C, D); once, while nothing there is trainable or random."""
        trainable = any(parameter.requires_grad for parameter in self.backbone.text.parameters())
        if trainable or self.backbone.is_random("text"):
            return self.encode_prompts(classnames)
        names = tuple(classnames)
        return self.remember(("class features", names, self.templates, self.device), lambda: self._frozen(names))

    @torch.no_grad()
    def _frozen(self, classnames: Sequence[str]) -> Tensor:
        return self.encode_prompts(classnames)

    def losses(self, logits: Tensor, labels: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """Cross-entropy, and the weighted distillation term where there is one."""
        terms = super().losses(logits, labels, classes)
        if not self.distillation_weight:
            return terms
        teacher = self.zero_shot_features(self.task.train)
        return terms | {"distillation": self.distillation_weight * distillation(classes, teacher)}
