"""Class features from hand-written prompts: a dataset's templates, filled with class names, through the text tower.

With several templates a class feature is the mean of the unit features, or that of the features as they are; neither
is normalised again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from clipbench.backbone.model import Backbone
from clipbench.backbone.prompts import PromptPlan
from clipbench.backbone.state import state_of
from clipbench.backbone.view import BackboneView
from clipbench.data.templates import fill

T = TypeVar("T")
Mean = Literal["unit", "raw"]


class ClassPrompts:
    """The prompts of any classes, and their features.

    Args:
        backbone: a method's view.
        templates: sentences with `{}` for the class name.
        lower_case: write class names in lower case.
    """

    def __init__(self, backbone: BackboneView, templates: Sequence[str], lower_case: bool = False) -> None:
        self.backbone, self.templates, self.lower_case = backbone, tuple(templates), lower_case
        self._values: dict[Hashable, tuple[Any, Any]] = {}

    @contextmanager
    def using(self, templates: Sequence[str]) -> Iterator[None]:
        """Within this context prompts are made from other templates."""
        before, self.templates = self.templates, tuple(templates)
        try:
            yield
        finally:
            self.templates = before

    def plan(self, classnames: Sequence[str]) -> PromptPlan:
        """All filled templates, class by class, template by template inside a class."""
        names = tuple(name.lower() for name in classnames) if self.lower_case else tuple(classnames)

        def make() -> PromptPlan:
            texts = [fill(template, name) for name in names for template in self.templates]
            return PromptPlan(self.backbone.tokenize(texts))

        return self.cached(("plan", names), make)

    def features(self, classnames: Sequence[str], mean: Mean = "unit") -> Tensor:
        """Features (C, D) by the text tower as it is now; encoded once while nothing there is trainable or random.

        Args:
            classnames: of C classes.
            mean: as that of `pretrained_features`.
        """
        tensors = list(self.backbone.text.parameters())
        if any(tensor.requires_grad for tensor in tensors) or self.backbone.is_random("text"):
            return self._over_templates(self.backbone.encode_text(self.plan(classnames)), mean)
        key = ("now", mean, tuple(classnames))
        return self.cached(key, lambda: self._frozen(self.backbone, classnames, mean), state_of(tensors))

    def pretrained_features(self, classnames: Sequence[str], mean: Mean = "unit") -> Tensor:
        """Features (C, D) by the pretrained text tower, without gradient: zero-shot CLIP's; encoded once.

        Args:
            classnames: of C classes.
            mean: over the templates, of unit vectors ("unit"), or of the features as they are ("raw").
        """
        twin = self.backbone.pretrained
        key = ("pretrained", mean, tuple(classnames), twin.logit_scale.device, twin.logit_scale.dtype)
        return self.cached(key, lambda: self._frozen(twin, classnames, mean))

    def cached(self, key: Hashable, make: Callable[[], T], state: Any = ()) -> T:
        """The value of `key` under these templates, made on first use and whenever it came from another state."""
        key = (key, self.templates)
        if key not in self._values or self._values[key][0] != state:
            self._values[key] = (state, make())
        return self._values[key][1]

    def _frozen(self, backbone: Backbone, classnames: Sequence[str], mean: Mean = "unit") -> Tensor:
        # not as inference tensors, which a later training step could not use
        with torch.inference_mode(False), torch.no_grad():
            return self._over_templates(backbone.encode_text(self.plan(classnames)), mean)

    def _over_templates(self, features: Tensor, mean: Mean = "unit") -> Tensor:
        count = len(self.templates)
        if count == 1:
            return features
        features = F.normalize(features, dim=-1) if mean == "unit" else features
        return features.unflatten(0, (-1, count)).mean(dim=1)
