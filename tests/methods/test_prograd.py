"""ProGrad: the projection in float64, the step that comes of it, and the words that the context starts from."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clipbench.data.task import Task, TestSplit
from clipbench.errors import ConfigError
from clipbench.methods.prograd import ProGrad, projected
from tests.methods.small import BASE, NOVEL


def pair(seed: int) -> tuple[Tensor, Tensor]:
    g, h = torch.randn((2, 4, 8), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return g, h


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 1), st.floats(1e-6, 1e6))
def test_the_projection_is_the_formula(seed: int, strength: float, scale: float) -> None:
    g, h = pair(seed)
    along = sum(float(a * b) for a, b in zip(g.flatten(), h.flatten(), strict=True))
    length = sum(float(b * b) for b in h.flatten())
    expected = g - strength * along / length * h if along < 0 else g
    torch.testing.assert_close(projected(g, h, strength), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(projected(g, scale * h, strength), expected, rtol=0, atol=1e-10)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31))
def test_nothing_is_left_that_goes_against_the_other(seed: int) -> None:
    g, h = pair(seed)
    assert float((projected(g, h, 1.0) * h).sum()) >= -1e-12
    torch.testing.assert_close(projected(projected(g, h, 1.0), h, 1.0), projected(g, h, 1.0), rtol=0, atol=1e-12)
    assert torch.equal(projected(g, h, 0.0), g)
    assert torch.equal(projected(g, torch.zeros_like(h), 1.0), g)


@pytest.mark.parametrize("labels", [[0, 1, 2, 0], [2, 2, 0, 1], [1, 0, 1, 1]])
def test_a_step_has_the_projected_gradient(make: Callable[..., ProGrad], labels: list[int]) -> None:
    method, images = make(ProGrad, n_context=6).double(), torch.randn(
        (4, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )  # fmt: skip
    target, vectors = torch.tensor(labels), method.context.vectors
    classes, features = method.class_features(BASE), method.image_features(images)
    logits = method.logits(features, classes)
    terms = method.losses(logits, target, classes)
    assert method.regularisation(images, features, logits, classes) == {}
    sum(terms.values()).backward()
    method.on_after_backward()

    zero_shot = method.backbone.pretrained
    v = F.normalize(zero_shot.encode_image(images), dim=1)
    t0 = F.normalize(method.prompts.pretrained_features(BASE), dim=1)
    p0 = (zero_shot.logit_scale.exp() * v @ t0.T).softmax(dim=1)
    now = zero_shot.logit_scale.exp() * v @ F.normalize(method.class_features(BASE), dim=1).T
    l_ce, l_kl = F.cross_entropy(now, target), -(p0 * now.log_softmax(dim=1)).sum() / 4
    (g,) = torch.autograd.grad(l_ce, [vectors], retain_graph=True)
    (h,) = torch.autograd.grad(l_kl, [vectors])
    dot = (g * h).sum()
    expected = g - dot / h.square().sum() * h if dot < 0 else g
    torch.testing.assert_close(vectors.grad, expected, rtol=1e-9, atol=1e-12)


def test_the_context_starts_from_the_words_before_the_class_name(make: Callable[..., ProGrad]) -> None:
    method = make(ProGrad, template="a satellite photo of {}.", n_context=7)
    table = method.backbone.get_parameter("text.token_embedding.weight")
    (ids,) = method.backbone.tokenize(["a satellite photo of"])
    vectors = method.context.vectors
    assert torch.equal(vectors[:3], torch.zeros_like(vectors[:3]))
    assert torch.equal(vectors[3:], table[torch.tensor(ids[1:-1])])
    bare = make(ProGrad, template="{} texture.", n_context=4).context
    assert torch.equal(bare.vectors, torch.zeros_like(bare.vectors))
    assert bare.followed_by == []


def test_the_token_that_a_comma_is_pushes_the_last_word_out(small: str) -> None:
    tests = (TestSplit("base", BASE, True), TestSplit("novel", NOVEL, False))
    method = ProGrad(backbone=small, template_set="prograd", lr=0.002)
    method.setup(task=Task("oxford_pets", None, BASE, tests))
    (ids,) = method.backbone.tokenize(["a type of pet, a photo of a"])
    assert len(ids) == 2 + 9
    assert method.context.followed_by == ids[9:-1] == [ids[1]]
    table = method.backbone.get_parameter("text.token_embedding.weight")
    assert torch.equal(method.context.vectors[8:], table[torch.tensor(ids[1:9])])
    (sequence, *_) = method.context.plan(method.backbone, NOVEL).sequences
    (name,) = method.backbone.tokenize(["2012 acura rl sedan."])
    vocabulary = method.backbone.vocab_size
    assert sequence == (ids[0], *range(vocabulary, vocabulary + 16), ids[1], *name[1:])


def test_what_cannot_be_is_refused(make: Callable[..., ProGrad]) -> None:
    with pytest.raises(ConfigError, match=r"n_context of ProGrad is 3, but 'a photo of a' has 4 words"):
        make(ProGrad, n_context=3)
    with pytest.raises(ConfigError, match="projection of ProGrad lies between 0 and 1, it is 2"):
        make(ProGrad, projection=2.0)
    method = make(ProGrad)
    method._trainer = SimpleNamespace(accumulate_grad_batches=2)
    with pytest.raises(ConfigError, match="accumulate_grad_batches must be 1"):
        method.on_fit_start()
