"""IVLP: deep prompts in both towers that know nothing of each other, the baseline of MaPLe (Khattak et al., CVPR 2023,
arXiv 2210.03117; in PromptSRC, ICCV 2023, section 3.1).

Text prompts enter the text tower and replace each other before its next blocks; image prompts do the same at the end of
the image's tokens (`tuning/deep_prompts.py`). 2 + 2 tokens before all 12 + 12 blocks. The first text prompt starts from
the words "a photo", and "of a" stands unchanged before the class name; all others start from normal noise of standard
deviation 0.02. Both towers are frozen; the loss is CLIP's cross-entropy, and all classes, also novel ones, are scored
with the same prompts.

Official code: muzairkhattak/multimodal-prompt-learning@69bce21 `trainers/independentVL.py`, `clip/model.py`.
Differences: fp32 instead of a mixture of fp16 and fp32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from clipbench.methods.base import Method
from clipbench.tuning.deep_prompts import IndependentPrompts
from clipbench.tuning.linears import NO_BATCHNORM


class IVLP(Method):
    """Independent vision-language prompting.

    Args:
        context_words: the first text prompt starts from their first tokens, others stay as they are; empty: noise.
        n_text_prompts: tokens of each text prompt.
        n_image_prompts: tokens of each image prompt.
        text_depth: how many blocks of the text tower have prompts of their own, from the input on.
        image_depth: how many of the image tower.
        shared: the arguments of `Method`.
    """

    interpolates = False
    exempt: Mapping[str, str] = NO_BATCHNORM | {"check_starts_at_zero_shot": "most of its prompts begin at random"}

    def __init__(
        self,
        context_words: str = "a photo of a",
        n_text_prompts: int = 2,
        n_image_prompts: int = 2,
        text_depth: int = 12,
        image_depth: int = 12,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.independent = IndependentPrompts(
            "IVLP", context_words, n_text_prompts, n_image_prompts, text_depth, image_depth
        )  # fmt: skip

    def requires(self) -> Mapping[str, set[str]]:
        """Blocks in both towers; a causal text tower that takes vectors in place of words."""
        return {"image": {"transformer"}, "text": {"packed"}}

    def build(self) -> dict[str, nn.Parameter]:
        """The prompts of both towers."""
        self.text_prompts, self.image_prompts = self.independent.begin(self.backbone, self.train_seed)
        parts = {"text_prompts": self.text_prompts, "image_prompts": self.image_prompts}
        return dict(nn.ModuleDict(parts).named_parameters())

    def num_trainable(self) -> int:
        """Depth x tokens x width, of either tower."""
        return self.independent.count(self.backbone)

    def class_features(self, classnames: Sequence[str]) -> Tensor:
        """Features (C, D) of the text tower with its prompts."""
        return self.text_prompts.features(self.prompts, classnames)

    def image_features(self, images: Tensor) -> Tensor:
        """Features (B, D) of the image tower with its prompts."""
        return self.image_prompts.features(self.backbone, images)
