"""CLIPFit: fine-tune some biases and norms of CLIP (Li et al., EMNLP 2024, arXiv 2409.16718).

Trained: in the text tower the bias of the second Linear of every MLP, in the image tower weight and bias of every
LayerNorm; 46,080 numbers on ViT-B/16. Loss (section 3 of the paper; official code `trainers/ClipFit.py`):

    L = CE(s v . t_c, y) + lambda (1 - mean_c cos(t_c, t0_c))

with the unit text features t_c now and t0_c before training, over the classes that are trained on.

Differences from the official code (minglllli/CLIPFit@4dde049):
- fp32 trained tensors under autocast instead of fp16 tensors without loss scaling; small updates are not lost.
- The distillation term is present in every precision; the official mixed-precision branch drops it.
- The text tower runs once per step; the official code runs it twice with the same outcome.
- LayerNorms are found by type, not by the letters `ln`; a ResNet tower has none, and both train the text biases alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from clipbench.errors import ClipbenchWarning, ConfigError
from clipbench.methods.base import Method
from clipbench.tuning.selection import select, select_modules


def distillation(features: Tensor, teacher: Tensor) -> Tensor:
    """1 - mean_c cos(t_c, t0_c): how far the class features (C, D) turned from the teacher's (C, D)."""
    return 1 - F.cosine_similarity(features.float(), teacher.float(), dim=-1).mean()


class CLIPFit(Method):
    """CLIPFit.

    Args:
        distillation_weight: lambda; 8 in base-to-novel, in few-shot 8 for DTD and SUN397 and 2 elsewhere.
        text_biases: train the text tower's part.
        image_norms: train the image tower's part.
        shared: the arguments of `Method`.
    """

    needs: ClassVar = {"text": {"transformer"}}

    def __init__(
        self,
        distillation_weight: float = 8.0,
        text_biases: bool = True,
        image_norms: bool = True,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        if not (text_biases or image_norms):
            raise ConfigError("CLIPFit with neither text_biases nor image_norms trains nothing")
        self.distillation_weight = distillation_weight
        self.text_biases = text_biases
        self.image_norms = image_norms

    def build(self) -> dict[str, nn.Parameter]:
        """Borrow the text biases and the image norms from the backbone."""
        names: list[str] = []
        if self.text_biases:
            names += select(self.backbone, "text", ["mlp.proj.bias"])
        if self.image_norms:
            norms = list(select_modules(self.backbone, "image", nn.LayerNorm))
            if not norms:
                message = (
                    f"the image tower of '{self.backbone.spec.name}' has no LayerNorm: CLIPFit trains text biases alone"
                )
                warnings.warn(message, ClipbenchWarning, stacklevel=2)
            names += norms
        return self.backbone.lend(names)

    def trained_count(self) -> int:
        """Text layers x width, and two vectors of the image width per LayerNorm."""
        biases = (
            len(select(self.backbone, "text", ["mlp.proj.bias"])) * self.backbone.text_width if self.text_biases else 0
        )
        norms = [m for m in self.backbone.image.modules() if isinstance(m, nn.LayerNorm)] if self.image_norms else []
        return biases + sum(2 * norm.normalized_shape[0] for norm in norms)

    def class_features(self, classnames: Sequence[str]) -> Tensor:
        """The tuned text tower on the prompts, (C, D)."""
        return self.encode_prompts(classnames)

    def losses(self, logits: Tensor, labels: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """Cross-entropy and the weighted distillation term."""
        terms = super().losses(logits, labels, classes)
        teacher = self.zero_shot_features(self.task.train)
        return terms | {"distillation": self.distillation_weight * distillation(classes, teacher)}
