"""Names of tensors: what is put together is taken apart again, whatever stands inside."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipbench.backbone.clip import load_backbone
from clipbench.backbone.names import TOWERS, TensorName, kind_of, parse_name, split_block, split_number

WORDS = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True).filter(lambda word: word not in (*TOWERS, "blocks"))
NAMES = st.lists(WORDS | st.integers(0, 99).map(str), min_size=1, max_size=5).map(".".join)
OWNERS = st.lists(WORDS, max_size=2).map(".".join)


def joined(*parts: str) -> str:
    return ".".join(part for part in parts if part)


@given(owner=OWNERS, tower=st.sampled_from(TOWERS), block=st.none() | st.integers(0, 99), inner=NAMES)
def test_a_name_is_taken_apart_into_what_it_was_made_of(owner: str, tower: str, block: int | None, inner: str) -> None:
    inside = joined("" if block is None else f"blocks.{block}", inner)
    assert parse_name(joined(owner, tower, inside)) == (owner, tower, block, inner)
    assert split_block(inside) == (block, inner)
    assert parse_name(joined(owner, tower, inside)).tower_of_backbone == ("" if owner else tower)


@given(inner=NAMES)
def test_a_name_without_a_tower_stays_whole(inner: str) -> None:
    assert parse_name(inner) == ("", None, None, inner)


@given(first=WORDS, number=st.integers(0, 99), inner=NAMES)
def test_the_first_number_is_the_block_of_any_family(first: str, number: int, inner: str) -> None:
    assert split_number(f"{first}.{number}.{inner}") == (number, inner)
    assert split_number(first) == (None, first)


@given(tower=st.sampled_from(TOWERS), block=st.integers(0, 99), inner=WORDS)
def test_a_kind_is_the_same_in_all_blocks_of_both_towers(tower: str, block: int, inner: str) -> None:
    assert kind_of(f"{tower}.blocks.{block}.{inner}.bias") == f"{inner}.bias"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("text.blocks.3.mlp.proj.bias", ("", "text", 3, "mlp.proj.bias")),
        ("image.blocks.0.mlp.proj.adapters.1.down.weight", ("", "image", 0, "mlp.proj.adapters.1.down.weight")),
        ("backbone.text.ln_final.bias", ("backbone", "text", None, "ln_final.bias")),
        ("image.trunk.blocks.4.norm2.weight", ("", "image", None, "trunk.blocks.4.norm2.weight")),
        ("image.text.weight", ("", "image", None, "text.weight")),
        ("image_proj.weight", ("", None, None, "image_proj.weight")),
        ("context", ("", None, None, "context")),
        ("text", ("", None, None, "text")),
        ("text.blocks.3", ("", "text", None, "blocks.3")),
    ],
)
def test_examples(name: str, parts: tuple[str, str | None, int | None, str]) -> None:
    assert parse_name(name) == TensorName(*parts)


def test_all_of_a_backbone_is_placed() -> None:
    """Every tensor but the logit scale is in a tower, and the blocks are numbered without gaps."""
    names = {name: parse_name(name) for name, _ in load_backbone("mini").named_parameters()}
    assert {name for name, parsed in names.items() if parsed.tower is None} == {"logit_scale"}
    for tower in TOWERS:
        blocks = {parsed.block for parsed in names.values() if parsed.tower == tower} - {None}
        assert blocks == set(range(len(blocks))) != set()
    assert kind_of("image.blocks.0.mlp.proj.adapters.1.down.weight") == "mlp.proj.adapters.down.weight"
