"""WiSE-FT: the weights between the pretrained and a tuned model (Wortsman et al., CVPR 2022, arXiv 2109.01903).

    theta(alpha) = (1 - alpha) theta_0 + alpha theta_1

with theta_0 before and theta_1 after any strategy of clipbench, alpha 0.5 by default; 0 is the untouched model, 1 the
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
from typing import Any

from torch import Tensor, nn

from clipbench.data.task import TestSplit
from clipbench.errors import ConfigError
from clipbench.methods.base import Method
from clipbench.methods.deliverable import Header, method_of, read_header
from clipbench.methods.start import inner_method


class WiSEFT(Method):
    """WiSE-FT.

    Args:
        backbone: that of the tuned model.
        template_set: of the prompts; null: that of the tuned model.
        start: the tuned model: a deliverable, or a recipe, which the bench runs first. (A deliverable of WiSE-FT holds
            in this place the header of the one that it came from.)
        alpha: share of the tuned model.
    """

    made_of_start = True
    starts_at_zero_shot = False
    exempt: Mapping[str, str] = {
        "check_trains_what_it_declares": "the tuned model was trained before; what lies between is computed",
        "check_goes_back_to_where_it_began": "interpolated by 0 it is the pretrained model, not what it was built as",
    }

    def __init__(
        self,
        backbone: str = "mini",
        template_set: str | None = None,
        start: str | dict[str, Any] = "full",
        alpha: float = 0.5,
    ) -> None:
        if template_set is None and isinstance(start, str) and Path(start).is_file():
            template_set = read_header(Path(start)).template_set
        super().__init__(backbone=backbone, template_set=template_set)  # type: ignore[arg-type]
        for name in set(self.hparams) - {"backbone", "template_set", "start", "alpha"}:
            del self.hparams[name]  # there is no optimiser to set
        self.hparams["template_set"] = template_set
        if not 0 <= alpha <= 1:
            raise ConfigError(f"alpha of WiSE-FT must be in [0, 1], it is {alpha}")
        self.start = start
        self.alpha = alpha

    def build(self) -> dict[str, nn.Parameter]:
        """Load the tuned model onto the backbone and go back from it, by 1 - alpha."""
        self._begins_from: dict[str, Tensor] = {}
        if isinstance(self.start, str):
            path = Path(self.start)
            self.inner = inner_method(path, self.backbone)
            self.hparams["start"] = read_header(path).as_dict()
            self._between()
        else:
            self._untuned()  # the tensors of a deliverable come by `take`
        return self.inner.built()

    def _untuned(self) -> None:
        """The tuned model's method as it was before, on a free backbone."""
        self.inner = method_of(Header(**self.hparams["start"]), Path("the start of WiSE-FT"), self.backbone_name)
        self.inner.adopt(self.backbone)

    def _between(self) -> None:
        """Keep what was learned, and interpolate."""
        task = dataclasses.replace(self.task, train=self.inner.task.train)
        self.inner.bind(task, self.templates, self.inner.train_seed)
        self.novel_rule = self.inner.novel_rule
        self.start_tensors = {name: tensor.clone() for name, tensor in self.inner.start_tensors.items()}
        self._tuned = {name: tensor.clone() for name, tensor in self.inner.learned().items()}
        self.inner.interpolate(self.alpha)
        self.forget()

    def trained_count(self) -> int:
        """That of the tuned model."""
        return self.inner.trained_count()

    def active_count(self) -> int:
        """That of the tuned model."""
        return self.inner.active_count()

    def learned(self) -> dict[str, Tensor]:
        """What the tuned model learned; the header says of which method it is, and alpha."""
        return self._tuned

    def begin_from(self, tensors: Mapping[str, Tensor]) -> None:
        """The weights that the tuned model began from; `take` follows."""
        self._begins_from = dict(tensors)

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Put the tuned model in place, afresh, and interpolate."""
        self.backbone.restore()
        self._untuned()
        if self._begins_from:
            self.inner.begin_from(self._begins_from)
        self.inner.take(tensors)
        self._between()
        self.trained = self.inner.built()

    def interpolate(self, alpha: float) -> None:
        """Go back from here towards the pretrained model."""
        self.inner.interpolate(alpha)
        self.forget()

    def release(self) -> None:
        """Give the backbone back."""
        super().release()
        if hasattr(self, "inner"):
            del self.inner

    def class_features(self, classnames: Sequence[str]) -> Tensor:
        """Those between, (C, D)."""
        return self.inner.class_features(classnames)

    def image_features(self, images: Tensor) -> Tensor:
        """Those between, (B, D)."""
        return self.inner.image_features(images)

    def logits(self, images: Tensor, classes: Tensor) -> Tensor:
        """Those between, (B, C)."""
        return self.inner.logits(images, classes)

    def uses_frozen(self, split: TestSplit) -> bool:
        """As the tuned model does."""
        return self.inner.uses_frozen(split)

    def configure_optimizers(self) -> None:
        """None: nothing is trained."""

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """None: nothing is trained."""
