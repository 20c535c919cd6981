"""TaskRes: a residual for each class feature (Yu et al., CVPR 2023, arXiv 2211.10277).

    w_c = t_c + alpha r_c,   r_c = 0 at the start

with t_c the text feature of class c, not normalised; logits and cross-entropy are CLIP's own on w (section 3.3). Weight
decay is Adam's L2, so it pulls r to 0, where zero-shot CLIP is.

Official code: geekyutao/TaskRes@5195359 `trainers/taskres.py`, with the regular base (the enhanced one starts from a
text projection that was tuned before; left out). For ImageNet the raw features of eight sentences are averaged. Its
scripts run RN50; of ViT-B/16 they have ImageNet alone (rate 2e-4), so the other datasets keep the scripts' 2e-3 [ours].
Differences: float32 instead of half; the official list of sentences grows with each further model in a process, ours
does not. A residual has no meaning for other classes: zero-shot answers there [ours].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clipbench.errors import ConfigError
from clipbench.methods.base import Method
from clipbench.tuning.rows import rows_of


class TaskRes(Method):
    """TaskRes.

    Args:
        alpha: scale of the residuals, above 0.
        shared: the arguments of `Method`.
    """

    novel_rule = "frozen"
    class_bound = ("residuals",)

    def __init__(self, alpha: float = 0.5, **shared: Any) -> None:
        super().__init__(**shared)
        if alpha <= 0:
            raise ConfigError(f"alpha of TaskRes must be above 0, it is {alpha}")
        self.alpha = alpha

    def build(self) -> dict[str, nn.Parameter]:
        """The residuals, zero."""
        shape = (len(self.classnames), self.backbone.embed_dim)
        self.residuals = nn.Parameter(torch.zeros(shape, device=self.backbone.logit_scale.device))
        return {"residuals": self.residuals}

    def num_trainable(self) -> int:
        """C D."""
        return len(self.classnames) * self.backbone.embed_dim

    def class_features(self, classnames: Sequence[str]) -> Tensor:
        """t + alpha r of trained classes, (C, D).

        Raises:
            UnknownName: a class that was not trained on.
        """
        residuals = rows_of(self.residuals, classnames, self.classnames, "TaskRes")
        return self.prompts.features(classnames, mean="raw") + self.alpha * residuals
