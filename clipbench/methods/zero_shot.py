"""Zero-shot CLIP: the class whose prompt is nearest to the image (Radford et al., 2021, section 3.1); no training.

The row that every base-to-novel table starts with uses one hand-written template per dataset, the set `coop`
(KaiyangZhou/CoOp@ff61507 `trainers/zsclip.py`). A set with several templates per dataset averages unit-length features.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from clipbench.methods.base import Method


class ZeroShot(Method):
    """Zero-shot CLIP."""

    def build(self) -> dict[str, nn.Parameter]:
        """Nothing is trained."""
        return {}

    def trained_count(self) -> int:
        """0."""
        return 0

    def class_features(self, classnames: Sequence[str]) -> Tensor:
        """The text features of the prompts, (C, D)."""
        return self.encode_prompts(classnames)
