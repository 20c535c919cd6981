"""TaskRes: residuals on raw text features, and the averaged sentences of ImageNet."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from clipbench.data.task import Task
from clipbench.data.templates import fill
from clipbench.errors import ConfigError, UnknownName
from clipbench.methods.base import Method
from clipbench.methods.taskres import TaskRes
from tests.methods.small import BASE


def test_a_class_feature_is_the_formula(make: Callable[..., Method]) -> None:
    method = make(TaskRes, alpha=0.5, template="{} texture.").double()
    with torch.no_grad():
        method.residuals.copy_(torch.randn((3, 32), generator=torch.Generator().manual_seed(0)))
    raw = method.prompts.pretrained_features(BASE)
    expected = raw + 0.5 * method.residuals
    torch.testing.assert_close(method.class_features(BASE), expected, rtol=1e-10, atol=1e-10)
    order = (BASE[2], BASE[0])
    torch.testing.assert_close(method.class_features(order), expected[[2, 0]], rtol=1e-6, atol=1e-6)
    with pytest.raises(UnknownName, match="class of this TaskRes"):
        method.class_features(("lake",))


def test_for_imagenet_raw_features_of_eight_sentences_are_averaged(small: str) -> None:
    method = TaskRes(backbone=small, template_set="taskres", optimizer="adam")
    method.setup(task=Task("imagenet", None, BASE, ()))
    assert len(method.templates) == 8
    assert method.templates[-1] == "a photo of a {}."
    assert len(set(method.templates)) == 8
    one = [[fill(template, name) for template in method.templates] for name in BASE]
    method.prompts.templates = ("{}",)
    singly = torch.stack([method.prompts.pretrained_features(texts).mean(dim=0) for texts in one])
    method.prompts.templates = method.templates
    torch.testing.assert_close(method.class_features(BASE).detach(), singly, rtol=1e-5, atol=1e-5)
    other = TaskRes(backbone=small, template_set="taskres", optimizer="adam")
    other.setup(task=Task("dtd", None, BASE, ()))
    assert other.templates == ("{} texture.",)


def test_a_scale_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="alpha of TaskRes must be above 0"):
        TaskRes(alpha=0.0)
