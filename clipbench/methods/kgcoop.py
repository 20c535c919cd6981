"""KgCoOp: a learned context, kept near to hand-written prompts (Yao et al., CVPR 2023, arXiv 2303.13283).

The prompts are CoOp's, `V1 .. VM name.`, with M = 4 vectors that start from "a photo of a"; both towers are frozen. The
loss adds, to the cross-entropy, how far the class features turned from those of the dataset's own template (section
3.2), over all trained classes at every step:

    CE + lambda (1 - mean_c cos(t_c, t0_c)),   lambda = 8

Official code: htyao89/KgCoOp@c43ccc3 `KgCoOp/trainers/kgcoop.py`; lambda is an argument of its run scripts (the code's
default is 1). Differences: fp32 instead of fp16, also for the teacher; the vectors and networks that the official code
makes and never trains are not made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from clipbench.methods.base import Method
from clipbench.tuning.context import Context
from clipbench.tuning.distillation import Distillation


class KgCoOp(Method):
    """KgCoOp.

    Args:
        context_words: initial words, one vector a token.
        distillation_weight: lambda; 0: CoOp.
        shared: the arguments of `Method`; the templates of the set are the teacher's.
    """

    exempt: Mapping[str, str] = {"check_starts_at_zero_shot": "its prompts are not the template's before training"}

    def __init__(self, context_words: str = "a photo of a", distillation_weight: float = 8.0, **shared: Any) -> None:
        super().__init__(**shared)
        self.context_words = context_words
        self.distillation = Distillation(distillation_weight)

    def requires(self) -> Mapping[str, set[str]]:
        """A text tower that takes vectors in place of words."""
        return {"text": {"transformer"}}

    def build(self) -> dict[str, nn.Parameter]:
        """Make the context vectors."""
        self.context = Context(Context.from_words(self.backbone, self.context_words))
        return {"context.vectors": self.context.vectors}

    def num_trainable(self) -> int:
        """M x W."""
        return (len(self.backbone.tokenize([self.context_words])[0]) - 2) * self.backbone.text_width

    def class_features(self, classnames: Sequence[str]) -> Tensor:
        """The frozen text tower on the prompts with the learned context, (C, D)."""
        return self.context.features(self.prompts, classnames)

    def losses(self, logits: Tensor, labels: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """Cross-entropy and distillation."""
        terms = super().losses(logits, labels, classes)
        return terms | self.distillation.terms(classes, self.prompts, self.classnames)
