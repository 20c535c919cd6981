"""Hooks between blocks: the same hook on the fast tower and on the plain twin gives the same features and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from clipbench.backbone import PromptPlan, Tokens, hook
from clipbench.backbone.clip import Backbone
from clipbench.errors import BackboneError
from clipbench.testing import plain

START, END = 62, 63
# a prefix of start and two words; suffixes of 2 to 5 tokens
SEQUENCES = [[START, 1, 2, 9, END], [START, 1, 2, 8, 7, 6, 5, END], [START, 1, 2, 9, 4, END], [START, 1, 2, 3, 3, END]]
CLASSES, IMAGES = len(SEQUENCES), 2


@pytest.fixture
def backbone(tiny: Any) -> Backbone:
    return tiny(vision={"layers": 2, "image_size": 24}).double()


def values(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64).requires_grad_()


def overwrite(at: int, new: Tensor) -> Callable[[Tokens], Tokens]:
    return lambda tokens: tokens.replace(at, new)


def insertion(at: int, new: Tensor) -> Callable[[Tokens], Tokens]:
    return lambda tokens: tokens.insert(at, new)


def each(function: Callable[[Tokens], Tokens]) -> Callable[[Tokens], Tokens]:
    return hook(per_class=True)(function)


def compare(fast: Tensor, slow: Tensor, *inputs: Tensor) -> None:
    """Features equal, and gradients to every input."""
    torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-11)
    weights = torch.randn(fast.shape, generator=torch.Generator().manual_seed(2), dtype=fast.dtype)
    for ours, theirs in zip(
        torch.autograd.grad((fast * weights).sum(), inputs, retain_graph=True),
        torch.autograd.grad((slow * weights).sum(), inputs, retain_graph=True),
        strict=True,
    ):
        assert theirs.abs().max() > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-11)


def compare_text(backbone: Backbone, before: dict[int, Any], after: dict[int, Any], *inputs: Tensor) -> None:
    plan = PromptPlan(SEQUENCES, row_length=8)
    untouched = backbone.encode_text(plan)
    fast = backbone.encode_text(plan, None, before, after)
    assert not torch.allclose(fast, untouched)
    compare(fast, plain.encode_text(backbone, plan, None, before, after), *inputs)


@pytest.mark.parametrize("at", [0, 1, 2, 3])
@pytest.mark.parametrize("block", [0, 1])
def test_text_shared_overwrite_within_and_across_the_prefix(backbone: Backbone, at: int, block: int) -> None:
    new = values(2, 16)
    compare_text(backbone, {block: overwrite(at, new)}, {}, new)


def test_text_deep_prompts_overwrite_before_every_block(backbone: Backbone) -> None:
    first, second = values(2, 16), values(2, 16)
    compare_text(backbone, {0: overwrite(1, first), 1: overwrite(2, second)}, {}, first, second)


@pytest.mark.parametrize("at", [1, 3, 4])
def test_text_shared_insertion_moves_the_end_of_text(backbone: Backbone, at: int) -> None:
    new = values(3, 16)
    compare_text(backbone, {1: insertion(at, new)}, {}, new)


def test_text_insertion_then_overwrite_of_what_was_inserted(backbone: Backbone) -> None:
    first, second = values(3, 16), values(2, 16)
    compare_text(backbone, {0: insertion(1, first), 1: overwrite(2, second)}, {}, first, second)


def test_text_drop(backbone: Backbone) -> None:
    new = values(2, 16)
    for at, count in ((1, 1), (2, 2), (0, 3)):
        chain = {0: overwrite(0, new), 1: lambda tokens, at=at, count=count: tokens.drop(at, count)}
        compare_text(backbone, chain, {}, new)


@pytest.mark.parametrize("at", [0, 1, 3])
def test_text_values_per_class(backbone: Backbone, at: int) -> None:
    new = values(CLASSES, 2, 16)
    compare_text(backbone, {1: each(overwrite(at, new))}, {}, new)
    compare_text(backbone, {1: each(insertion(at, new))}, {}, new)
    compare_text(backbone, {}, {0: each(insertion(at, new))}, new)


def test_text_values_per_class_need_the_mark_where_a_prefix_is_shared(backbone: Backbone) -> None:
    plan = PromptPlan(SEQUENCES)
    with pytest.raises(BackboneError, match="which all classes share: declare the hook per class"):
        backbone.encode_text(plan, None, {1: overwrite(1, values(CLASSES, 1, 16))})
    # behind the prefix classes lie apart anyway
    new = values(CLASSES, 1, 16)
    compare_text(backbone, {1: overwrite(3, new)}, {}, new)


def test_text_adapter_on_every_row_and_on_the_last_block(backbone: Backbone) -> None:
    matrix = values(16, 16)

    def adapter(tokens: Tokens) -> Tokens:
        return tokens.with_rows(tokens.rows + torch.tanh(tokens.rows @ matrix))

    for block in (0, 1):
        compare_text(backbone, {block: adapter}, {}, matrix)
        compare_text(backbone, {}, {block: adapter}, matrix)


def test_a_side_path_around_the_last_block_meets_pooled_rows(backbone: Backbone) -> None:
    """An adapter that reads what enters the last block and is added to what leaves it, on both towers."""
    kept: dict[str, Tokens] = {}

    def keep_input(tokens: Tokens) -> Tokens:
        kept["input"] = tokens
        return tokens

    def add(tokens: Tokens) -> Tokens:
        return tokens.with_rows(tokens.rows + kept["input"].pooled().rows)

    plan, pixels = PromptPlan(SEQUENCES), torch.randn(IMAGES, 3, 24, 24).double()
    fast = backbone.encode_text(plan, None, {1: keep_input}, {1: add})
    whole = hook(every_position=True)(lambda tokens: tokens.with_rows(tokens.rows + kept["input"].rows))
    torch.testing.assert_close(fast, backbone.encode_text(plan, None, {1: keep_input}, {1: whole}))
    fast = backbone.encode_image(pixels, {1: keep_input}, {1: add})
    torch.testing.assert_close(fast, backbone.encode_image(pixels, {1: keep_input}, {1: whole}))


def test_text_rows_know_their_class_and_position(backbone: Backbone) -> None:
    seen = []

    def look(tokens: Any) -> Tokens:
        seen.append((tokens.layout.prefix, tokens.layout.class_of.copy(), tokens.layout.position_of.copy()))
        assert torch.equal(tokens.read(1, 2), tokens.rows[1:3])
        assert tokens.read(3, 2).shape == (CLASSES, 2, 16)
        return tokens

    backbone.encode_text(PromptPlan(SEQUENCES), None, {0: look})
    ((prefix, classes, positions),) = seen
    assert prefix == 3
    for c, sequence in enumerate(SEQUENCES):
        assert sorted(positions[classes == c]) == list(range(3, len(sequence)))


def test_after_the_last_block_only_end_of_text_is_left(backbone: Backbone) -> None:
    shapes = []

    def look(tokens: Tokens) -> Tokens:
        shapes.append(tuple(tokens.rows.shape))
        return tokens

    plan = PromptPlan(SEQUENCES)
    backbone.encode_text(plan, None, None, {1: look})
    assert shapes == [(CLASSES, 16)]
    for edit in (
        lambda t: t.read(0, 1),
        lambda t: t.drop(0, 1),
        overwrite(0, values(1, 16)),
        insertion(0, values(1, 16)),
    ):
        with pytest.raises(BackboneError, match="only the end-of-text rows are left"):
            backbone.encode_text(plan, None, None, {1: edit})


def test_impossible_edits_are_refused(backbone: Backbone) -> None:
    plan, pixels = PromptPlan(SEQUENCES), torch.randn(1, 3, 24, 24)
    with pytest.raises(BackboneError, match="cannot drop positions 3 to 4: one is the token that is pooled"):
        backbone.encode_text(plan, None, {0: lambda t: t.drop(3, 2)})
    with pytest.raises(BackboneError, match="cannot replace 9 tokens at position 0: the shortest class has 5"):
        backbone.encode_text(plan, None, {0: overwrite(0, values(9, 16))})
    with pytest.raises(BackboneError, match="after an end of text"):
        backbone.encode_text(plan, None, {0: insertion(5, values(1, 16))})
    with pytest.raises(BackboneError, match="3 classes were given, but there are 4"):
        backbone.encode_text(plan, None, {0: each(insertion(1, values(3, 1, 16)))})
    with pytest.raises(BackboneError, match="no block 2 to hook"):
        backbone.encode_text(plan, None, {2: lambda t: t})
    with pytest.raises(BackboneError, match="pooling reads nothing else"):
        backbone.encode_image(pixels, {0: lambda t: t.drop(0, 1)})
    with pytest.raises(BackboneError, match="cannot replace positions 9 to 10 of 10 image tokens"):
        backbone.encode_image(pixels, {0: overwrite(9, values(2, 24))})


def compare_image(backbone: Backbone, before: dict[int, Any], after: dict[int, Any], *inputs: Tensor) -> None:
    pixels = torch.randn(IMAGES, 3, 24, 24, generator=torch.Generator().manual_seed(1)).double()
    fast = backbone.encode_image(pixels, before, after)
    assert not torch.allclose(fast, backbone.encode_image(pixels))
    compare(fast, plain.encode_image(backbone, pixels, before, after), *inputs)


@pytest.mark.parametrize("shape", [(2, 24), (IMAGES, 2, 24)])
@pytest.mark.parametrize("at", [0, 1, 8])
def test_image_overwrite_and_insertion(backbone: Backbone, shape: tuple[int, ...], at: int) -> None:
    new = values(*shape)
    for block in (0, 1):
        compare_image(backbone, {block: overwrite(at, new)}, {}, new)
        compare_image(backbone, {block: insertion(at, new)}, {}, new)
    compare_image(backbone, {}, {0: insertion(at, new)}, new)


def test_image_appended_tokens_are_exchanged_before_the_next_block(backbone: Backbone) -> None:
    """Deep visual prompts: appended before block 0, removed and appended anew before block 1."""
    first, second = values(3, 24), values(3, 24) * 2
    end = 10

    def exchange(tokens: Tokens) -> Tokens:
        return tokens.drop(end, 3).insert(end, second)

    compare_image(backbone, {0: insertion(end, first), 1: exchange}, {}, first, second)


def test_image_tokens_of_the_last_block_can_be_read(backbone: Backbone) -> None:
    """Representation tokens: inserted behind the class token, read after the last block."""
    new, read = values(2, 24), []

    @hook(every_position=True)
    def keep(tokens: Tokens) -> Tokens:
        read.append(tokens.read(1, 2))
        return tokens

    pixels = torch.randn(IMAGES, 3, 24, 24).double()
    hooks = ({1: insertion(1, new)}, {1: keep})
    compare(backbone.encode_image(pixels, *hooks), plain.encode_image(backbone, pixels, *hooks), new)
    compare(read[0], read[1], new)


def test_image_average_pools_patches_not_inserted_tokens(tiny: Any) -> None:
    backbone = tiny(vision={"pool_type": "avg", "layers": 1}).double()
    pixels, new = torch.randn(IMAGES, 3, 16, 16).double(), values(2, 24)
    kept = []
    backbone.encode_image(pixels, {0: insertion(1, new)}, {0: lambda t: kept.append(t.kept) or t})
    backbone.encode_image(pixels, {0: insertion(5, new)}, {0: lambda t: kept.append(t.kept) or t})
    assert kept == [(3, 4, 5, 6), (1, 2, 3, 4)]


def test_hidden_states_can_be_continued_from_a_block(backbone: Backbone) -> None:
    """What a store of hidden states needs: embed, run to a block, run on from there."""
    pixels, plan, kept = torch.randn(IMAGES, 3, 24, 24).double(), PromptPlan(SEQUENCES), []
    whole = backbone.encode_image(pixels, {1: lambda t: kept.append(t) or t})
    assert torch.equal(backbone.image.head(backbone.image.run(kept[0], first=1)), whole)
    whole = backbone.encode_text(plan, None, {1: lambda t: kept.append(t) or t})
    assert torch.equal(backbone.text.head(backbone.text.run(kept[1], first=1)), whole)
