"""MaPLe: the formula in float64, how it begins, and what the two towers share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from clipbench.data.task import Task
from clipbench.errors import ConfigError
from clipbench.methods.maple import MaPLe
from clipbench.testing import plain
from clipbench.tuning.context import Context
from clipbench.tuning.deep_prompts import encode_image
from tests.methods.small import BASE, NOVEL, cosine_logits, pixels


@pytest.fixture
def method(make: Callable[..., MaPLe]) -> MaPLe:
    return make(MaPLe, depth=2).double()


@pytest.mark.parametrize("names", [BASE, NOVEL], ids=["base", "novel"])
def test_logits_are_the_formula(method: MaPLe, names: tuple[str, ...]) -> None:
    backbone, prompts = method.backbone, method.text_prompts
    with torch.no_grad():
        found = method(pixels(), names)
        of_image = [
            torch.stack([linear.weight @ token + linear.bias for token in values])
            for linear, values in zip(method.maps, [prompts.context.vectors, *prompts.deeper], strict=True)
        ]
        with plain.plain_image(backbone):
            v = encode_image(backbone, pixels(), of_image)
        plan = prompts.context.plan(backbone, names)
        hooks = {1: lambda tokens: tokens.replace(1, prompts.deeper[0])}
        t = plain.encode_text(backbone, plan, prompts.context.vectors, before_block=hooks)
        expected = cosine_logits(backbone, v, t)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_how_it_begins(make: Callable[..., MaPLe]) -> None:
    method = make(MaPLe, depth=2, n_prompts=2)
    words = Context.from_words(method.backbone, "a photo")
    assert torch.equal(method.text_prompts.context.vectors, words)
    deep = make(MaPLe, depth=2)
    assert torch.equal(deep.maps[1].weight, method.maps[1].weight), "the same seed"
    assert not torch.equal(method.maps[0].weight, method.maps[1].weight)
    method.setup(task=method.task, train_seed=2)
    assert torch.equal(method.text_prompts.context.vectors, words)
    assert not torch.equal(method.text_prompts.deeper[0], deep.text_prompts.deeper[0])
    assert not torch.equal(method.maps[1].weight, deep.maps[1].weight)


def test_maps_of_deeper_blocks_begin_as_copies_and_go_their_own_ways() -> None:
    method = MaPLe(backbone="mini", depth=4)
    method.setup(task=Task("dtd", None, ("forest", "river"), ()))
    first, *deeper = method.maps
    assert all(torch.equal(linear.weight, deeper[0].weight) for linear in deeper)
    assert len({linear.weight.data_ptr() for linear in method.maps}) == 4
    assert not torch.equal(first.weight, deeper[0].weight)


def test_the_image_side_teaches_the_text_prompts(method: MaPLe) -> None:
    method.image_features(pixels()).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in method.trainable.values())


def test_towers_with_fewer_blocks_are_named(make: Callable[..., MaPLe]) -> None:
    with pytest.raises(ConfigError, match=r"depth of MaPLe is 9, but the image tower of '.*' has 2 blocks"):
        make(MaPLe)
