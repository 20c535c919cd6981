"""VPT: visual prompt tuning of CLIP's image tower (Jia et al., ECCV 2022, arXiv 2203.12119), as it stands beside MaPLe.

Image prompts of n tokens stand at the end of the image's tokens. Shallow: they enter with the image and run through the
whole tower. Deep: before every further block others take their place (`tuning/deep_prompts.py`). Class features are
CLIP's own, of "a photo of a {}."; both towers are frozen, and the loss is CLIP's cross-entropy.

    v(x) = image tower of [class token, patches, P_1],   P_i in the place of P_(i-1) before block i = 2 .. J

n = 8; J = 12 in `vpt`, the released setting, and 1 in `vpt_shallow`; normal noise of standard deviation 0.02.

Official code: muzairkhattak/multimodal-prompt-learning@69bce21 `trainers/vpt.py`, `clip/model.py`; no shallow setting
was released. Differences: prompts in fp32 instead of fp16. In the paper's own code (KMnP/vpt@4410440) prompts stand
between class token and patches, start from another distribution, and a linear head is trained: another method.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from clipbench.methods.base import Method
from clipbench.randomness import torch_generator
from clipbench.tuning.deep_prompts import ImagePrompts, from_noise, refuse_senseless, refuse_too_deep
from clipbench.tuning.linears import NO_BATCHNORM


class VPT(Method):
    """Visual prompt tuning.

    Args:
        n_prompts: n, tokens of each prompt.
        depth: J, how many blocks have prompts of their own, from the input on; 1: shallow.
        shared: the arguments of `Method`.
    """

    interpolates = False
    exempt: Mapping[str, str] = NO_BATCHNORM | {"check_starts_at_zero_shot": "its prompts begin at random"}

    def __init__(self, n_prompts: int = 8, depth: int = 12, **shared: Any) -> None:
        super().__init__(**shared)
        refuse_senseless("VPT", n_prompts=n_prompts, depth=depth)
        self.n_prompts, self.depth = n_prompts, depth

    def requires(self) -> Mapping[str, set[str]]:
        """Blocks in the image tower."""
        return {"image": {"transformer"}}

    def build(self) -> dict[str, nn.Parameter]:
        """The prompts."""
        refuse_too_deep("VPT", self.backbone, "image", depth=self.depth)
        generator = torch_generator(self.train_seed, "init", "image prompts")
        width = self.backbone.image_width
        self.image_prompts = ImagePrompts(from_noise(self.depth, self.n_prompts, width, generator))
        return {f"image_prompts.{name}": p for name, p in self.image_prompts.named_parameters()}

    def num_trainable(self) -> int:
        """J x n x width."""
        return self.depth * self.n_prompts * self.backbone.image_width

    def image_features(self, images: Tensor) -> Tensor:
        """Features (B, D) of the image tower with its prompts."""
        return self.image_prompts.features(self.backbone, images)
