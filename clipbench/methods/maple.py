"""MaPLe: deep prompts in both towers, those of the image tower made from the text's (Khattak et al., CVPR 2023, arXiv
2210.03117).

Text prompts P_1 .. P_J of n tokens enter the text tower and replace each other before blocks 2 .. J (section 3.2.1). A
linear map a block makes the image tower's prompts of them, which do the same at the end of the image's tokens (sections
3.2.2 and 3.2.3):

    image prompts of block i:  F_i(P_i) = A_i P_i + b_i,   i = 1 .. J

n = 2, J = 9. P_1 starts from the words "a photo", and "of a" stands unchanged before the class name; the others start
from normal noise of standard deviation 0.02. F_2 .. F_J start as copies of one map. Both towers are frozen; the loss is
CLIP's cross-entropy, and all classes, also novel ones, are scored with the same prompts.

Official code: muzairkhattak/multimodal-prompt-learning@69bce21 `trainers/maple.py`, `clip/model.py`. Differences: fp32
instead of a mixture of fp16 and fp32.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from clipbench.methods.base import Method
from clipbench.randomness import torch_generator
from clipbench.tuning.deep_prompts import TextPrompts, encode_image, refuse_senseless, refuse_too_deep
from clipbench.tuning.linears import NO_BATCHNORM


class MaPLe(Method):
    """MaPLe.

    Args:
        context_words: the first prompt starts from their first tokens, others stay as they are; empty: noise.
        n_prompts: n, tokens of each prompt.
        depth: J, how many blocks of either tower have prompts of their own, from the input on.
        shared: the arguments of `Method`.
    """

    interpolates = False
    exempt: Mapping[str, str] = NO_BATCHNORM | {"check_starts_at_zero_shot": "most of its prompts begin at random"}

    def __init__(
        self, context_words: str = "a photo of a", n_prompts: int = 2, depth: int = 9, **shared: Any
    ) -> None:  # fmt: skip
        super().__init__(**shared)
        refuse_senseless("MaPLe", n_prompts=n_prompts, depth=depth)
        self.context_words, self.n_prompts, self.depth = context_words, n_prompts, depth

    def requires(self) -> Mapping[str, set[str]]:
        """Blocks in both towers; a causal text tower that takes vectors in place of words."""
        return {"image": {"transformer"}, "text": {"packed"}}

    def build(self) -> dict[str, nn.Parameter]:
        """The text prompts, and the maps with PyTorch's initialisation."""
        for tower in ("image", "text"):
            refuse_too_deep("MaPLe", self.backbone, tower, depth=self.depth)
        generator = torch_generator(self.train_seed, "init", "text prompts")
        self.text_prompts = TextPrompts.begin(
            self.backbone, self.context_words, self.n_prompts, self.depth, generator
        )  # fmt: skip
        first, deeper = (nn.Linear(self.backbone.text_width, self.backbone.image_width) for _ in range(2))
        self.maps = nn.ModuleList([first, *(copy.deepcopy(deeper) for _ in range(self.depth - 1))])
        return dict(nn.ModuleDict({"text_prompts": self.text_prompts, "maps": self.maps}).named_parameters())

    def num_trainable(self) -> int:
        """J (n W + (W + 1) V), with W and V the widths of the text and the image tower."""
        text, image = self.backbone.text_width, self.backbone.image_width
        return self.depth * (self.n_prompts * text + (text + 1) * image)

    def class_features(self, classnames: Sequence[str]) -> Tensor:
        """Features (C, D) of the text tower with its prompts."""
        return self.text_prompts.features(self.prompts, classnames)

    def image_features(self, images: Tensor) -> Tensor:
        """Features (B, D) of the image tower with F_i(P_i) at the end of its tokens."""
        prompts = [f(p) for f, p in zip(self.maps, self.text_prompts.all(), strict=True)]
        return encode_image(self.backbone, images, prompts)
