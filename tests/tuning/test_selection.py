"""Selections: what a sentence means, in which order, and what is said when it means nothing."""

from __future__ import annotations

import pytest

from clipbench.backbone.clip import Backbone, describe_backbone
from clipbench.errors import ConfigError
from clipbench.tuning.selection import select_linears, select_tensors

NAME = "ViT-B-32/random"


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return describe_backbone(NAME)


def names(backbone: Backbone, *sentences: str) -> list[str]:
    return list(select_tensors(backbone, sentences))


def test_all_blocks_in_order(backbone: Backbone) -> None:
    expected = [f"text.blocks.{i}.mlp.proj.bias" for i in range(12)]
    assert names(backbone, "text tower, blocks all, mlp.proj.bias") == expected


@pytest.mark.parametrize(
    ("blocks", "numbers"),
    [
        ("block 3", [3]), ("blocks 0 and -1", [0, 11]), ("blocks 2 to 4", [2, 3, 4]), ("first 2 blocks", [0, 1]),
        ("last 1 block", [11]), ("all blocks", list(range(12))), ("blocks -2 to -1", [10, 11]),
    ],
)  # fmt: skip
def test_blocks(backbone: Backbone, blocks: str, numbers: list[int]) -> None:
    found = names(backbone, f"image tower, {blocks}, ln_1.weight")
    assert found == [f"image.blocks.{i}.ln_1.weight" for i in numbers]


def test_several_patterns_and_exceptions(backbone: Backbone) -> None:
    found = names(backbone, "text tower, block 3, attn.[qv]_proj.bias and ln_1.* except ln_1.weight")
    assert found == [f"text.blocks.3.{name}" for name in ("ln_1.bias", "attn.q_proj.bias", "attn.v_proj.bias")]
    assert found == names(backbone, "text tower, block 3, attn.[qv]_proj.bias and ln_1.*, except ln_1.weight")


def test_several_sentences_follow_the_towers_not_their_own_order(backbone: Backbone) -> None:
    assert names(backbone, "text tower, proj", "image tower, proj", "both towers, proj") == ["image.proj", "text.proj"]


def test_kinds_by_count(backbone: Backbone) -> None:
    def count(*sentences: str) -> int:
        return sum(tensor.numel() for tensor in select_tensors(backbone, sentences).values())

    assert count("image tower, LayerNorm") == 39_936
    assert count("both towers, LayerNorm") == 65_536
    assert count("both towers, biases") == 171_008
    everything = sum(parameter.numel() for parameter in backbone.parameters()) - 1
    assert count("both towers, everything") == everything
    assert count("both towers, everything except token_embedding.weight") == everything - 49_408 * 512


def test_linears_by_name_and_kind(backbone: Backbone) -> None:
    last = [f"image.blocks.11.{name}" for name in ("attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.out_proj")]
    assert list(select_linears(backbone, ["image tower, last 1 block, attn.*"])) == last
    assert len(select_linears(backbone, ["both towers, blocks all, Linears"])) == 2 * 12 * 6
    assert "image.patch_embed" in select_linears(backbone, ["image tower, Linears"])


def test_norms_are_found_by_type(backbone: Backbone) -> None:
    with pytest.raises(ConfigError, match="'LayerNorm' matches no tensor"):
        names(describe_backbone("RN50/random"), "image tower, LayerNorm")


@pytest.mark.parametrize(
    ("sentence", "says"),
    [
        ("text tower, blocks all, mlp.c_proj.bias", r"'mlp\.c_proj\.bias' matches no tensor.*mlp\.proj\.bias"),
        ("text tower, block 12, mlp.proj.bias", "blocks 0 to 11, there is no block 12"),
        ("text towers, mlp.proj.bias", "begins with no tower.*text tower"),
        ("text tower", "cannot be read"),
        ("text tower, blocks all", "matches no tensor"),
        ("text tower, the first few, mlp.fc.bias", "'the first few' names no blocks"),
        ("text tower, last 13 blocks, mlp.fc.bias", "has 12 blocks"),
        ("text tower, blocks 3 to 1, mlp.fc.bias", "block 3 comes after block 1"),
        ("text tower, blocks all, biases and ln_3.*", r"'ln_3\.\*' matches no tensor"),
        ("text tower, blocks all, biases, except ln_3.*", r"'ln_3\.\*' matches no tensor"),
        ("text tower, blocks all, ln_1.bias, except biases", "matches no tensor"),
    ],
)
def test_a_sentence_that_means_nothing_says_why(backbone: Backbone, sentence: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        names(backbone, sentence)


def test_a_selection_is_a_list(backbone: Backbone) -> None:
    with pytest.raises(ConfigError, match="a list of sentences"):
        select_tensors(backbone, "text tower, proj")
    with pytest.raises(ConfigError, match="a list of sentences"):
        select_tensors(backbone, [])


def test_foreign_towers_have_no_blocks_of_ours() -> None:
    resnet = describe_backbone("RN50/random")
    with pytest.raises(ConfigError, match="has no blocks of ours"):
        select_tensors(resnet, ["image tower, blocks all, biases"])
    assert select_tensors(resnet, ["image tower, biases"])
