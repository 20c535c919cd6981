"""CoOp: where the context stands, how many numbers it has, what it starts from."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from clipbench.bench.trained_parameters import trained_by
from clipbench.errors import ConfigError, UnknownName
from clipbench.methods.coop import CoOp
from clipbench.methods.zero_shot import ZeroShot
from tests.methods.small import BASE

VOCABULARY = 49408


def pieces(method: CoOp, name: str) -> tuple[int, list[int], int, int]:
    """Start of text, the tokens of the name, the full stop, end of text."""
    (whole,) = method.backbone.tokenize([f"{name}."])
    return whole[0], whole[1:-2], whole[-2], whole[-1]


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_where_the_context_stands(make: Callable[..., CoOp], position: str) -> None:
    method = make(CoOp, position=position)
    plan = method.context.plan(method.backbone, ["golden retriever"])
    start, name, stop, end = pieces(method, "golden retriever")
    v = [VOCABULARY + i for i in range(4)]
    expected = {
        "end": [start, *v, *name, stop, end],
        "middle": [start, *v[:2], *name, *v[2:], stop, end],
        "front": [start, *name, *v, stop, end],
    }
    assert list(plan.sequences[0]) == expected[position]


def test_shared_context_is_part_of_the_common_prefix(make: Callable[..., CoOp]) -> None:
    method = make(CoOp)
    assert method.context.plan(method.backbone, ["forest", "sea or lake"]).prefix >= 5


def test_words_give_the_features_of_the_words(make: Callable[..., CoOp]) -> None:
    method = make(CoOp)
    assert method.trainable["context.vectors"].shape == (4, 32)
    torch.testing.assert_close(
        method.class_features(BASE), method.prompts.pretrained_features(BASE), rtol=1e-5, atol=1e-6
    )


def test_underscores_are_blanks(make: Callable[..., CoOp]) -> None:
    method = make(CoOp)
    torch.testing.assert_close(method.class_features(["sea_or_lake"]), method.class_features(["sea or lake"]))


def test_noise_is_a_function_of_the_seed(make: Callable[..., CoOp]) -> None:
    first, second = (make(CoOp, context_words="").trainable for _ in range(2))
    assert torch.equal(first["context.vectors"], second["context.vectors"])
    assert first["context.vectors"].shape == (16, 32)
    assert 0.015 < float(first["context.vectors"].detach().std()) < 0.025


def test_class_specific_vectors_reach_their_own_class_only(make: Callable[..., CoOp]) -> None:
    method = make(CoOp, context_words="", n_context=3, class_specific=True)
    assert method.num_trainable() == 3 * 3 * 32
    assert method.novel_rule == "frozen"
    features = method.class_features(BASE)
    (gradient,) = torch.autograd.grad(features[1].sum(), method.context.vectors)
    assert gradient[1].abs().max() > 0
    assert gradient[[0, 2]].abs().max() == 0
    with pytest.raises(UnknownName, match=r"unknown class .* 'fores'; did you mean 'forest'"):
        method.class_features(("fores", "golden retriever"))
    novel = method.task.tests[1].classnames
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(method(images, novel), make(ZeroShot)(images, novel))


def test_count_on_vit_b_16() -> None:
    assert trained_by("coop", "ViT-B-16/openai")["trained_parameters"] == 2_048


def test_no_vector_is_refused(small: str) -> None:
    with pytest.raises(ConfigError, match="at least one"):
        CoOp(backbone=small, context_words="", n_context=0)
