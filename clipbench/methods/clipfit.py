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
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from clipbench.errors import ClipbenchWarning, ConfigError
from clipbench.methods.base import Method
from clipbench.tuning.distillation import Distillation
from clipbench.tuning.selection import select_tensors

TEXT_BIASES = "text tower, blocks all, mlp.proj.bias"
IMAGE_NORMS = "image tower, LayerNorm"


class CLIPFit(Method):
    """CLIPFit.

    Args:
        distillation_weight: lambda; 8 in base-to-novel, in few-shot 8 for DTD and SUN397 and 2 elsewhere.
        text_biases: whether to train the biases of the text tower.
        image_norms: whether to train the LayerNorms of the image tower.
        shared: the arguments of `Method`.
    """

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
        self.text_biases, self.image_norms = text_biases, image_norms
        self.distillation = Distillation(distillation_weight)

    def requires(self) -> Mapping[str, set[str]]:
        """Blocks with an MLP in the text tower."""
        return {"text": {"transformer"}}

    def build(self) -> dict[str, nn.Parameter]:
        """Unfreeze the text biases and the image norms."""
        sentences = [TEXT_BIASES] if self.text_biases else []
        if self.image_norms and self._norms():
            sentences.append(IMAGE_NORMS)
        elif self.image_norms:
            name = self.backbone_name
            message = f"the image tower of '{name}' has no LayerNorm: CLIPFit trains text biases alone"
            warnings.warn(message, ClipbenchWarning, stacklevel=2)
        return self.backbone.unfreeze(select_tensors(self.backbone, sentences) if sentences else ())

    def num_trainable(self) -> int:
        """Text layers x width, and two vectors of the image width per LayerNorm."""
        text = self.backbone.text_layers * self.backbone.text_width if self.text_biases else 0
        return text + sum(2 * norm.normalized_shape[0] for norm in self._norms() if self.image_norms)

    def losses(self, logits: Tensor, labels: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """Cross-entropy and the distillation from the class features before training."""
        terms = super().losses(logits, labels, classes)
        return terms | self.distillation.terms(classes, self.prompts, self.classnames)

    def _norms(self) -> list[nn.LayerNorm]:
        return [module for module in self.backbone.image.modules() if isinstance(module, nn.LayerNorm)]
