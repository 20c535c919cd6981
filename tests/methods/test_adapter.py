"""Adapters in the towers: the table of counts, the identity at the start, where they stand, and going back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from clipbench.bench.build import method_without_weights
from clipbench.bench.trained_parameters import trained_by
from clipbench.errors import ConfigError, MethodError, UnreadSetting
from clipbench.methods.adapter import Adapter
from clipbench.methods.base import Method
from clipbench.testing.subject import pretrained_logits
from clipbench.tuning.adapters import AdaptedLinear
from tests.methods.small import images, learn, scores


@torch.no_grad()
def zero_shot_scores(method: Method) -> Tensor:
    return pretrained_logits(method, images(method), method.classnames)


def count_of(**arguments: Any) -> int:
    """Trained numbers on ViT-B/16, checked against the method's formula."""
    method = method_without_weights(Adapter, {"backbone": "ViT-B-16/random"} | arguments, classes=2)
    found = sum(tensor.numel() for tensor in method.trainable.values())
    assert found == method.num_trainable()
    return found


@pytest.mark.parametrize(
    ("n", "reduction", "count"),
    [
        (1, 4, 5_131_008), (2, 4, 10_262_016), (3, 4, 15_393_024), (1, 8, 2_573_184), (2, 8, 5_146_368),
        (3, 8, 7_719_552), (1, 16, 1_294_272), (2, 16, 2_588_544), (3, 16, 3_882_816), (1, 64, 335_088),
        (2, 64, 670_176), (3, 64, 1_005_264),
    ],
)  # fmt: skip
def test_the_table_of_counts_on_vit_b_16(n: int, reduction: int, count: int) -> None:
    assert count_of(n_adapters=n, reduction=reduction) == count


def test_both_points_have_double_the_count() -> None:
    assert count_of(points="mlp") == 2_588_544
    assert count_of(points="both") == 2 * 2_588_544


def test_the_count_of_the_recipe_on_vit_b_16() -> None:
    assert trained_by("adapter", "ViT-B-16/random")["trained_parameters"] == 2_588_544


@pytest.mark.parametrize("points", ["attn", "mlp", "both"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_untrained_it_is_zero_shot_bit_for_bit(make: Callable[..., Adapter], points: Any, n: int) -> None:
    method = make(Adapter, points=points, n_adapters=n, reduction=4)
    before, zero_shot = scores(method), zero_shot_scores(method)
    assert torch.equal(before, zero_shot)
    assert float((scores(learn(method)) - zero_shot).abs().max()) > 1e-2


def test_they_stand_where_the_sentences_say(make: Callable[..., Adapter]) -> None:
    method = make(Adapter, where=["image tower, block 1", "text tower, first 1 blocks"], points="both", reduction=4)
    places = method.backbone.replaced
    assert sorted(places) == [
        "image.blocks.1.attn.out_proj", "image.blocks.1.mlp.proj", "text.blocks.0.attn.out_proj",
        "text.blocks.0.mlp.proj",
    ]  # fmt: skip
    assert all(isinstance(module, AdaptedLinear) and len(module.adapters) == 2 for module in places.values())


def test_adapters_begin_differently_at_every_place(make: Callable[..., Adapter]) -> None:
    weights = [tensor for name, tensor in make(Adapter).trainable.items() if name.endswith("down.weight")]
    values = {float(weight.detach().flatten()[0]) for weight in weights}
    assert len(values) == len(weights) == 2 * 2 * 2


@pytest.mark.parametrize("n", [1, 3])
def test_what_they_add_ends_up_in_the_stream_once(make: Callable[..., Adapter], n: int) -> None:
    """One block by hand in float64: h + y_n, then the MLP as ever."""
    method = learn(make(Adapter, where=["text tower, block 0"], n_adapters=n, reduction=4))
    backbone = method.backbone
    plan = method.prompts.plan(("forest", "lake"))
    with torch.no_grad():
        tokens = backbone.text.embed(plan)
        block = backbone.text.blocks[0]
        h, attn = tokens.rows, block.attn
        x = block.ln_1(h)
        y = attn.out_proj.linear(tokens.attend(attn.q_proj(x), attn.k_proj(x), attn.v_proj(x), attn.heads, False))
        for adapter in attn.out_proj.adapters:
            hidden = (y.double() @ adapter.down.weight.double().T + adapter.down.bias.double()).clamp_min(0)
            y = (y.double() + hidden @ adapter.up.weight.double().T + adapter.up.bias.double()).float()
        h = h + y
        expected = h + block.mlp(block.ln_2(h))
        torch.testing.assert_close(block(tokens).rows, expected, rtol=1e-5, atol=1e-5)


def test_they_are_not_in_the_weights_but_go_back_to_zero_shot(make: Callable[..., Adapter]) -> None:
    method = make(Adapter)
    zero_shot = scores(method)
    learned = scores(learn(method))
    assert not method.backbone.can_hold(method.trainable.values())
    with pytest.raises(MethodError, match="not in the backbone's weights alone"):
        method.weights.in_the_backbone()
    with method.backbone.merged():
        assert torch.equal(scores(method), learned)
    method.weights.interpolate(0.0)
    assert torch.equal(scores(method), zero_shot)


def test_what_cannot_be_is_refused(make: Callable[..., Adapter], small: str) -> None:
    with pytest.raises(ConfigError, match="n_adapters and reduction must be 1 or more: n_adapters=0"):
        Adapter(backbone=small, n_adapters=0)
    with pytest.raises(UnreadSetting, match=r"momentum=0\.9 .* adam"):
        Adapter(backbone=small, optimizer="adam", momentum=0.9)
    with pytest.raises(ConfigError, match=r"write \['both towers'\]"):
        Adapter(backbone=small, where="both towers")
    with pytest.raises(ConfigError, match="has 2 blocks"):
        make(Adapter, where=["text tower, last 3 blocks"])
