"""WiSE-FT: the weights between the pretrained and a tuned model (Wortsman et al., CVPR 2022, arXiv 2109.01903).

    theta(alpha) = (1 - alpha) theta_0 + alpha theta_1

with theta_0 before and theta_1 after any method of clipbench, alpha 0.5 by default; 0 is the untouched model, 1 the
tuned one (mlfoundations/wise-ft@58b7a4b `src/wise_ft.py` [code]: every tensor of image tower and head). Nothing is
trained and alpha is fixed beforehand: no test image chooses it.

Ours: only what was trained is interpolated, all else is equal on both sides; low-rank factors by their product,
adapters by their last Linear, masks by W (1 - alpha + alpha M); the text tower too. WiSE-FT's head starts from the
class features; here they come from the text tower, for base and novel classes alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from clipbench.errors import ConfigError, MethodError
from clipbench.methods.arguments import refuse_unknown
from clipbench.methods.base import Method
from clipbench.methods.weights_file import Header, Learned, read_header, read_learned


class WiSEFT(Method):
    """WiSE-FT.

    Args:
        backbone: name of the backbone, that of the tuned model.
        template_set: the named set of templates that prompts are made from; None: that of the tuned model.
        start: the tuned model: a file of learned weights, or in a bench a recipe, which runs first. (In the weights of
            WiSE-FT the header of that file stands here.)
        alpha: share of the tuned model, from 0 to 1.
    """

    has_optimizer: ClassVar[bool] = False
    derived: ClassVar[bool] = True
    exempt: Mapping[str, str] = {
        "check_trains_what_it_declares": "the tuned model was trained before; what lies between is computed",
        "check_goes_back_to_where_it_began": "interpolated by 0 it is the pretrained model, not what it was built as",
    }

    tuned: Learned

    def __init__(
        self,
        backbone: str = "mini",
        template_set: str | None = None,
        start: str | dict[str, Any] = "full",
        alpha: float = 0.5,
        **unknown: Any,
    ) -> None:
        refuse_unknown(type(self), unknown)
        if template_set is None and isinstance(start, str) and Path(start).is_file():
            template_set = read_header(Path(start)).template_set
        super().__init__(backbone, template_set, start)  # type: ignore[arg-type]
        if not 0 <= alpha <= 1:
            raise ConfigError(f"alpha of WiSE-FT must be in [0, 1], it is {alpha}")
        self.alpha = alpha

    def setup(self, stage: str | None = None, **given: Any) -> None:
        """As every method; MethodError where there is no tuned model."""
        if self.header is None and given.get("learned") is None and isinstance(self.start, str):
            self.template_set = self.template_set or read_header(Path(self.start)).template_set
        super().setup(stage, **given)

    def build(self) -> dict[str, nn.Parameter]:
        """The tuned model, gone back by 1 - alpha."""
        if isinstance(self.start, str):
            self._interpolated(read_learned(Path(self.start)))
            self.hparams["start"] = self.tuned.header.as_dict()
        else:  # the tensors come with `load_adapter_state_dict`
            self.tuned = Learned(Header(**self.hparams["start"]), {}, self.weights.start)
        return self.trainable

    def _interpolated(self, tuned: Learned) -> None:
        self.tuned, self.inner = tuned, tuned.method(backbone=self.backbone_name)
        if not self.inner.interpolates:
            raise MethodError(
                f"what {type(self.inner).__name__} learned is not made from the pretrained model: no way back"
            )
        self.novel_rule = self.inner.novel_rule
        self.inner.weights.interpolate(self.alpha)
        self.backbone, self.trainable = self.inner.backbone, self.inner.trainable
        self.weights, self.prompts = self.inner.weights, self.inner.prompts
        self.prompts.templates = self.templates

    def num_trainable(self) -> int:
        """That of the tuned model."""
        return self.inner.num_trainable()

    def class_features(self, classnames: Sequence[str]) -> Tensor:
        """Those between, (C, D)."""
        return self.inner.class_features(classnames)

    def image_features(self, images: Tensor) -> Tensor:
        """Those between, (B, D)."""
        return self.inner.image_features(images)

    def logits(self, features: Tensor, classes: Tensor) -> Tensor:
        """Those between, (B, C)."""
        return self.inner.logits(features, classes)

    def adapter_state_dict(self) -> dict[str, Tensor]:
        """What the tuned model learned; the header says of which method it is, and alpha."""
        return dict(self.tuned.tensors or {})

    def load_adapter_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Put the tuned model in place, afresh, and interpolate."""
        self._interpolated(dataclasses.replace(self.tuned, tensors=tensors))
