"""Zero-shot CLIP: the class whose prompt is nearest to the image (Radford et al., 2021, section 3.1); no training.

The row that every base-to-novel table starts with uses one hand-written template per dataset, the set `coop`
(KaiyangZhou/CoOp@ff61507 `trainers/zsclip.py`). A set with several templates per dataset averages unit-length features.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from clipbench.methods.arguments import refuse_unknown
from clipbench.methods.base import Method


class ZeroShot(Method):
    """Zero-shot CLIP.

    Args:
        backbone: name of the backbone.
        template_set: the named set of templates that prompts are made from.
        start: file of learned weights to classify with instead of the pretrained ones.
    """

    has_optimizer: ClassVar[bool] = False

    def __init__(
        self, backbone: str = "mini", template_set: str = "coop", start: str | None = None, **unknown: Any
    ) -> None:
        refuse_unknown(type(self), unknown)
        super().__init__(backbone, template_set, start)

    def build(self) -> dict[str, nn.Parameter]:
        """Nothing is trained."""
        return {}

    def num_trainable(self) -> int:
        """0."""
        return 0
