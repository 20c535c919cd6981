"""Distillation from the class features before training: the term that keeps a tuned text side near to CLIP.

    lambda (1 - mean_c cos(t_c, t0_c))

Source: Yao et al., CVPR 2023 (KgCoOp, arXiv 2303.13283), on prompts; Li et al., EMNLP 2024 (CLIPFit, arXiv 2409.16718),
section 3, on the tower; official code of the latter `trainers/ClipFit.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from clipbench.errors import ConfigError
from clipbench.tuning.class_prompts import ClassPrompts


def distance(features: Tensor, teacher: Tensor) -> Tensor:
    """1 - mean_c cos(t_c, t0_c): how far the class features (C, D) turned from the teacher's (C, D)."""
    return 1 - F.cosine_similarity(features.float(), teacher.float(), dim=-1).mean()


class Distillation:
    """The weighted term.

    Args:
        weight: lambda, 0 or more; 0 leaves the term out and asks no teacher.

    Raises:
        ConfigError: a weight below 0.
    """

    def __init__(self, weight: float) -> None:
        if weight < 0:
            raise ConfigError(f"distillation_weight must not be below 0, it is {weight}")
        self.weight = weight

    def terms(self, features: Tensor, prompts: ClassPrompts, classnames: Sequence[str]) -> dict[str, Tensor]:
        """The term by its name, or nothing where the weight is 0.

        Args:
            features: class features now, (C, D).
            prompts: they give the features before training.
            classnames: of the C classes.
        """
        if not self.weight:
            return {}
        return {"distillation": self.weight * distance(features, prompts.pretrained_features(classnames))}
