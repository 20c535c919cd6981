"""VPT: the formula in float64, shallow and deep, and a classifier that stays CLIP's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from clipbench.errors import ConfigError
from clipbench.methods.vpt import VPT
from clipbench.testing import plain
from tests.methods.small import BASE, NOVEL, cosine_logits, pixels


@pytest.mark.parametrize("names", [BASE, NOVEL], ids=["base", "novel"])
@pytest.mark.parametrize("depth", [1, 2])
def test_logits_are_the_formula(make: Callable[..., VPT], names: tuple[str, ...], depth: int) -> None:
    method = make(VPT, depth=depth).double()
    backbone, prompts = method.backbone, list(method.image_prompts.prompts)
    assert [tuple(p.shape) for p in prompts] == [(8, 48)] * depth
    patches = (32 // 8) ** 2
    hooks = {0: lambda tokens: tokens.insert(1 + patches, backbone.image.ln_pre(prompts[0]))}
    if depth == 2:
        hooks[1] = lambda tokens: tokens.replace(1 + patches, prompts[1])
    with torch.no_grad():
        v = plain.encode_image(backbone, pixels(), before_block=hooks)
        t = method.prompts.pretrained_features(names)
        expected = cosine_logits(backbone, v, t)
        torch.testing.assert_close(method(pixels(), names), expected, rtol=0, atol=1e-10)


def test_class_features_are_clips_own(make: Callable[..., VPT]) -> None:
    method = make(VPT, depth=2)
    assert torch.equal(method.class_features(NOVEL), method.prompts.pretrained_features(NOVEL))


def test_what_it_cannot_be_is_refused(make: Callable[..., VPT]) -> None:
    with pytest.raises(ConfigError, match=r"depth of VPT is 12, but the image tower of '.*' has 2 blocks"):
        make(VPT)
    with pytest.raises(ConfigError, match="depth of VPT must be 1 or more, it is 0"):
        make(VPT, depth=0)
