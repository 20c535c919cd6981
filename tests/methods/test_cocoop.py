"""CoCoOp: the formula image by image in float64, what it trains, and prompts without end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from clipbench.backbone import text
from clipbench.errors import ConfigError
from clipbench.methods.cocoop import CoCoOp
from clipbench.testing import plain
from tests.methods.small import BASE, NOVEL, pixels


@pytest.fixture
def method(make: Callable[..., CoCoOp]) -> CoCoOp:
    return make(CoCoOp).double()


@pytest.mark.parametrize("names", [BASE, NOVEL], ids=["base", "novel"])
def test_logits_are_the_formula_image_by_image(method: CoCoOp, names: tuple[str, ...]) -> None:
    backbone = method.backbone
    first, second = method.meta_net[0], method.meta_net[2]
    expected = []
    with torch.no_grad():
        for image in pixels():
            v = plain.encode_image(backbone, image[None])[0]
            v = v / v.norm()
            shift = second.weight @ (first.weight @ v + first.bias).clamp(min=0) + second.bias
            context = torch.stack([row + shift for row in method.context.vectors])
            t = plain.encode_text(backbone, method.context.plan(backbone, names), context)
            expected.append(backbone.logit_scale.exp() * (t / t.norm(dim=1, keepdim=True)) @ v)
        found = method(pixels(), names)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-10)


def test_a_small_budget_changes_nothing(method: CoCoOp, monkeypatch: pytest.MonkeyPatch) -> None:
    def gradients() -> list[Tensor]:
        logits = method.logits(method.image_features(pixels()), method.class_features(BASE))
        return list(torch.autograd.grad(logits.square().sum(), list(method.trainable.values())))

    whole = gradients()
    monkeypatch.setattr(text, "BUDGET", 1)
    for found, expected in zip(gradients(), whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_without_a_shift_every_image_has_the_words_own_features(method: CoCoOp) -> None:
    with torch.no_grad():
        method.meta_net[2].weight.zero_()
        method.meta_net[2].bias.zero_()
        twin = method.backbone.pretrained
        zero_shot = twin.logits(twin.encode_image(pixels()), method.prompts.pretrained_features(BASE))
        torch.testing.assert_close(method(pixels(), BASE), zero_shot, rtol=0, atol=1e-10)


def test_it_needs_words(make: Callable[..., CoCoOp]) -> None:
    with pytest.raises(ConfigError, match="context_words of CoCoOp are empty"):
        make(CoCoOp, context_words=" ")
