"""IVLP: the formula in float64, and two towers that know nothing of each other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from clipbench.errors import ConfigError
from clipbench.methods.ivlp import IVLP
from clipbench.testing import plain
from clipbench.tuning.deep_prompts import encode_image
from tests.methods.small import BASE, NOVEL, cosine_logits, pixels


@pytest.mark.parametrize("names", [BASE, NOVEL], ids=["base", "novel"])
@pytest.mark.parametrize(("text_depth", "image_depth"), [(2, 1), (1, 2), (2, 2)])
def test_logits_are_the_formula(
    make: Callable[..., IVLP], names: tuple[str, ...], text_depth: int, image_depth: int
) -> None:
    method = make(IVLP, text_depth=text_depth, image_depth=image_depth, n_text_prompts=3, n_image_prompts=5).double()
    backbone, text, image = method.backbone, method.text_prompts, method.image_prompts.prompts
    with torch.no_grad():
        found = method(pixels(), names)
        with plain.plain_image(backbone):
            v = encode_image(backbone, pixels(), list(image))
        plan = text.context.plan(backbone, names)
        hooks = {1: lambda tokens: tokens.replace(1, text.deeper[0])} if text_depth == 2 else {}
        t = plain.encode_text(backbone, plan, text.context.vectors, before_block=hooks)
        expected = cosine_logits(backbone, v, t)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    assert [tuple(p.shape) for p in image] == [(5, 48)] * image_depth
    assert [tuple(p.shape) for p in text.all()] == [(3, 32)] * text_depth


def test_each_tower_moves_its_own_prompts(make: Callable[..., IVLP]) -> None:
    method = make(IVLP, text_depth=2, image_depth=2).double()
    method.image_features(pixels()).square().sum().backward()
    assert all((p.grad is None) == name.startswith("text") for name, p in method.trainable.items())
    method.class_features(BASE).square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in method.trainable.values())


def test_each_depth_is_that_of_its_tower(make: Callable[..., IVLP]) -> None:
    with pytest.raises(ConfigError, match=r"text_depth of IVLP is 12, but the text tower of '.*' has 2 blocks"):
        make(IVLP)
    with pytest.raises(ConfigError, match=r"image_depth of IVLP is 3, but the image tower of '.*' has 2 blocks"):
        make(IVLP, text_depth=2, image_depth=3)
    with pytest.raises(ConfigError, match="n_image_prompts of IVLP must be 1 or more, it is 0"):
        make(IVLP, n_image_prompts=0)
