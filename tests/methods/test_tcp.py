"""TCP: the logits in float64, whose vectors stand where, and the two sentences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from clipbench.backbone.prompts import PromptPlan
from clipbench.data.task import Task
from clipbench.errors import ConfigError
from clipbench.methods.tcp import TCP
from clipbench.testing import plain
from clipbench.testing.frozen import check_batchnorm_and_dropout_stay_frozen
from clipbench.testing.subject import Subject
from tests.methods.small import BASE, NOVEL, TESTS, cosine_logits, distillation, pixels


def of_dataset(small: str, dataset: str) -> TCP:
    method = TCP(backbone=small, template_set="tcp", block=2, lr=0.002)
    method.setup(task=Task(dataset, None, BASE, TESTS))
    return method


def own_vectors(method: TCP, names: tuple[str, ...]) -> Tensor:
    """U (C, M, W), written out."""
    first, _, second = method.meta_net
    t0 = method.frozen_features(names)
    hidden = (t0 / t0.norm(dim=1, keepdim=True)) @ first.weight.T + first.bias
    hidden = hidden / (1 + torch.exp(-1.702 * hidden))
    return (hidden @ second.weight.T + second.bias).view(len(names), method.n_context, -1)


@pytest.mark.parametrize("names", [BASE, NOVEL], ids=["base", "novel"])
@pytest.mark.parametrize("block", [1, 2])
def test_logits_are_the_formula(make: Callable[..., TCP], names: tuple[str, ...], block: int) -> None:
    method = make(TCP, block=block, n_context=3).double()
    backbone = method.backbone
    images = pixels()
    with torch.no_grad():
        found, own = method(images, names), own_vectors(method, names)
        ids = backbone.tokenize([f"a {name.replace('_', ' ')}." for name in names])
        rows = []
        for number, text in enumerate(ids):  # one class at a time: nothing is shared
            vocabulary = backbone.vocab_size
            plan = PromptPlan([[text[0], *range(vocabulary, vocabulary + 3), *text[1:]]])
            hooks = {block - 1: lambda tokens, number=number: tokens.replace(1, own[number])}
            rows.append(plain.encode_text(backbone, plan, method.context.vectors, before_block=hooks))
        t, v = torch.cat(rows), backbone.encode_image(images)
        expected = cosine_logits(backbone, v, t)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_the_loss_is_the_formula(small: str) -> None:
    method = of_dataset(small, "dtd").double()
    classes, logits = method.class_features(BASE), torch.tensor([[1.0, 2.0, 3.0], [0.5, -1.0, 0.0]])
    terms = method.losses(logits, torch.tensor([2, 1]), classes)
    expected = distillation(classes, method.frozen_features(BASE), 8)
    assert float(terms["distillation"].detach()) == pytest.approx(expected, rel=1e-5)
    assert set(terms) == {"cross_entropy", "distillation"}
    sum(terms.values()).backward()
    assert all(p.grad.abs().max() > 0 for p in method.trainable.values())


@pytest.mark.parametrize(
    ("dataset", "frozen", "after"),
    [
        ("dtd", "a photo of a forest, a type of texture.", "forest texture."),
        ("stanford_cars", "a photo of a forest.", "forest, a type of car"),
        ("ucf101", "a photo of a person doing forest.", "person doing forest."),
        ("fgvc_aircraft", "a photo of an aircraft forest.", "forest, a type of aircraft."),
        ("sun397", "a photo of a forest.", "forest."),
    ],
)
def test_each_dataset_has_two_sentences(small: str, dataset: str, frozen: str, after: str) -> None:
    method = of_dataset(small, dataset)
    backbone, vocabulary = method.backbone, method.backbone.vocab_size
    (ids,) = backbone.tokenize([after])
    assert method._plan(("forest",)).sequences[0] == (ids[0], *range(vocabulary, vocabulary + 4), *ids[1:])
    with method.prompts.using([frozen.replace("forest", "{}")]):
        expected = method.prompts.pretrained_features(BASE)
    assert torch.equal(method.frozen_features(BASE), expected)


def test_a_template_of_ones_own_serves_both(make: Callable[..., TCP]) -> None:
    method = make(TCP, template="a large satellite photo of some {} land.", block=2)
    assert method.n_context == 4
    (ids,) = method.backbone.tokenize(["of some forest land."])
    vocabulary = method.backbone.vocab_size
    assert method._plan(("forest",)).sequences[0] == (ids[0], *range(vocabulary, vocabulary + 4), *ids[1:])
    assert method.prompts.templates == ("a large satellite photo of some {} land.",)


def test_classes_do_not_touch_each_other(make: Callable[..., TCP]) -> None:
    method = make(TCP, block=2).double()
    with torch.no_grad():
        alone, together = method.class_features(NOVEL[:1]), method.class_features(NOVEL + BASE)
        turned = method.class_features((*BASE[::-1], *NOVEL[::-1]))
    torch.testing.assert_close(together[:1], alone, rtol=0, atol=1e-12)
    torch.testing.assert_close(turned.flip(0), together, rtol=0, atol=1e-12)


def test_a_block_that_the_tower_lacks_is_refused(make: Callable[..., TCP]) -> None:
    with pytest.raises(ConfigError, match=r"block of TCP is 9, but the text tower of '.*' has 2 blocks"):
        make(TCP)
    with pytest.raises(ConfigError, match="n_context of TCP must be 1 or more, it is 0"):
        make(TCP, n_context=0)


def test_an_image_tower_with_batchnorm_stays_frozen(tmp_path: Path) -> None:
    check_batchnorm_and_dropout_stay_frozen(Subject("tcp", tmp_path, settings={"model.block": 2}))
