"""Learned context: where its vectors stand in a prompt, and what they are at the start."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clipbench.backbone import PromptPlan
from clipbench.backbone.clip import Backbone
from clipbench.backbone.view import BackboneView
from clipbench.errors import ConfigError
from clipbench.testing import plain
from clipbench.tuning.context import Context, Position

NAMES = ("cat", "red_fox")
FIRST = 49408  # the first id behind the vocabulary


def vectors(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("position", "order"),
    [("end", "VVVV name ."), ("middle", "VV name VV ."), ("front", "name VVVV .")],
)
@pytest.mark.parametrize("specific", [False, True])
def test_where_the_vectors_stand(backbone: Backbone, position: Position, order: str, specific: bool) -> None:
    context = Context(vectors(2, 4, 16) if specific else vectors(4, 16), position)
    plan = context.plan(backbone, NAMES)
    for number, (name, sequence) in enumerate(zip(("cat", "red fox"), plan.sequences, strict=True)):
        rows = iter(range(FIRST + (4 * number if specific else 0), FIRST + 1000))
        (start, *word, dot, end) = backbone.tokenize([f"{name}."])[0]
        expected = [start]
        for part in order.split():
            expected += word if part == "name" else [dot] if part == "." else [next(rows) for _ in part]
        assert list(sequence) == [*expected, end]


def test_features_and_gradients_are_those_of_the_plain_tower(backbone: Backbone) -> None:
    wide = backbone.double()
    context = Context(vectors(2, 4, 16), "middle").double()
    plan = context.plan(wide, NAMES)
    ours, oracle = (path(plan, context.rows()) for path in (wide.encode_text, lambda *a: plain.encode_text(wide, *a)))
    torch.testing.assert_close(ours, oracle, rtol=0, atol=1e-10)
    found, expected = (torch.autograd.grad(f.square().sum(), context.vectors)[0] for f in (ours, oracle))
    assert expected.abs().sum(dim=(1, 2)).min() > 0
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_words_give_a_copy_of_their_embeddings(backbone: Backbone, view: BackboneView) -> None:
    (ids,) = backbone.tokenize(["a photo of a"])
    table = backbone.get_parameter("text.token_embedding.weight")
    context = Context(Context.from_words(view, "a photo of a"))
    assert torch.equal(context.vectors, table[torch.tensor(ids[1:-1])])
    several = Context(Context.from_words(view, "a photo of a", classes=3))
    assert several.class_specific
    assert torch.equal(several.rows(), context.vectors.repeat(3, 1))
    with torch.no_grad():
        context.vectors.zero_()
        several.vectors.zero_()
    assert backbone.compute_hash() == backbone.hash
    as_words = Context(Context.from_words(view, "a photo of a"))
    asked = view.encode_text(as_words.plan(view, NAMES), as_words.rows())
    said = view.encode_text(PromptPlan(view.tokenize(["a photo of a cat.", "a photo of a red fox."])))
    torch.testing.assert_close(asked, said)


def test_a_context_from_words_needs_words(backbone: Backbone) -> None:
    with pytest.raises(ConfigError, match="starts from words needs some"):
        Context.from_words(backbone, " ")


def test_noise_is_small_and_drawn_from_the_generator() -> None:
    drawn = Context.from_noise(512, 16, torch.Generator().manual_seed(1), classes=4)
    assert drawn.shape == (4, 16, 512)
    assert float(drawn.std()) == pytest.approx(0.02, rel=0.02)
    assert torch.equal(drawn, Context.from_noise(512, 16, torch.Generator().manual_seed(1), classes=4))
    assert Context.from_noise(8, 2, torch.Generator()).shape == (2, 8)


def test_vectors_of_classes_need_their_owners(backbone: Backbone) -> None:
    context = Context(vectors(2, 4, 16))
    with pytest.raises(ConfigError, match="the context has vectors of 2 classes, 3 were given"):
        context.plan(backbone, [*NAMES, "dog"])
    plan = context.plan(backbone, ["dog"], owners=[1])
    assert [token for token in plan.sequences[0] if token >= FIRST] == [FIRST + 4 + i for i in range(4)]
