"""What a method answers about one batch of images, for any list of classes; no tower is asked twice.

Where a head is bound to the trained classes (`novel_rule` frozen), zero-shot CLIP answers for classes that were not
trained on. In a list of both kinds zero-shot divides the probability between the halves and the head divides what the
trained classes get [ours]:

    p(c) = p0(c) for a new class c,   p(c) = p0(trained) p_head(c | trained) for a trained one

with p0 the softmax of zero-shot's logits over the whole list. So inside each half the ranking is the one that is
measured there, and neither the split nor the label of an image is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clipbench.backbone.state import state_of
from clipbench.data.task import TestSplit
from clipbench.data.templates import templates_for_task
from clipbench.errors import MethodError

if TYPE_CHECKING:
    from clipbench.methods.base import Method


class Answers:
    """Logits of one batch.

    Args:
        method: set up.
        images: (B, 3, H, W), uint8 pixels, or floats that are taken as normalised.
        split: that they are of; one of another dataset brings its templates, and all its classes count as new.
    """

    def __init__(self, method: Method, images: Tensor, split: TestSplit | None = None) -> None:
        self.method = method
        self.elsewhere = split if split is not None and split.dataset is not None else None
        self.images = method.backbone.normalise(images) if images.dtype == torch.uint8 else images

    def logits(self, classnames: Sequence[str]) -> Tensor:
        """(B, C), float32.

        Raises:
            MethodError: a class that the method was not trained on and has no rule for.
        """
        if self.elsewhere is None:
            return self._of_known(tuple(classnames), set(self.method.classnames))
        with self.method.prompts.using(templates_for_task(self.method.template_set, self.elsewhere)):
            return self._of_known(tuple(classnames), set())

    def _of_known(self, names: tuple[str, ...], known: Set[str]) -> Tensor:
        """Logits where some classes were trained on."""
        method = self.method
        new = torch.tensor([name not in known for name in names])
        if not new.any() or not (method.class_bound or method.novel_rule == "frozen"):
            return self._of_method(names)
        if method.novel_rule != "frozen":
            raise MethodError(
                f"'{method.class_bound[0]}' of {type(method).__name__} has rows for the classes that were trained on "
                "alone: other classes need a novel_rule, for example novel_rule = 'frozen' (zero-shot answers)"
            )
        zero_shot = method.backbone.pretrained.logits(self._frozen, method.prompts.pretrained_features(names))
        if new.all():
            return zero_shot
        head = self._of_method([name for name in names if name in known])
        return divided(zero_shot, head, (~new).to(head.device))

    def _of_method(self, names: Sequence[str]) -> Tensor:
        """Logits by the method's own rule."""
        method = self.method
        if torch.is_grad_enabled() and method.trainable:
            return method.logits(self._features, method.class_features(names))
        with method.backbone.merged():
            with torch.inference_mode(False), torch.no_grad(), torch.autocast(method.device.type, enabled=False):
                key, state = ("evaluated", tuple(names)), state_of(method.parameters())
                classes = method.prompts.cached(key, lambda: method.class_features(names), state)
            return method.logits(self._features, classes)

    @cached_property
    def _features(self) -> Tensor:
        """(B, D) by the method."""
        return self.method.image_features(self.images)

    @cached_property
    def _frozen(self) -> Tensor:
        """(B, D) by the pretrained image tower."""
        return self.method.backbone.pretrained.encode_image(self.images)


def divided(zero_shot: Tensor, head: Tensor, trained: Tensor) -> Tensor:
    """Logarithms of the probabilities over a list of trained and of new classes (see the top of the file).

    Args:
        zero_shot: logits (B, C) of all classes.
        head: logits (B, T) of the trained ones, in the order in which they stand in the list.
        trained: (C,) bool.
    """
    log_p = zero_shot.float().log_softmax(dim=-1)
    half = log_p[:, trained].logsumexp(dim=-1, keepdim=True)
    out = log_p.clone()
    out[:, trained] = half + head.float().log_softmax(dim=-1)
    return out
