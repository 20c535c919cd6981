"""Groups: the published slices, and matrices with the small tensors of a block together."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clipbench.tuning.fisher_groups import Group, entries, matrix_groups, slice_bounds, sliced_groups


def tensors(*shapes: tuple[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {name: torch.zeros(shape) for name, shape in shapes}


TOWER = tensors(
    ("image.blocks.0.attn.q_proj.weight", (64, 64)),
    ("image.blocks.0.attn.q_proj.bias", (64,)),
    ("image.blocks.0.ln_1.weight", (64,)),
    ("image.blocks.1.ln_1.weight", (300,)),
    ("image.ln_post.weight", (64,)),
    ("text.blocks.0.mlp.fc.weight", (8, 16)),
    ("text.blocks.0.mlp.fc.bias", (256,)),
    ("text.proj", (16, 16)),
    ("logit_scale", ()),
)


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (10, [(0, 2), (2, 5), (5, 7), (7, 10)]),
        (7, [(0, 1), (1, 3), (3, 5), (5, 7)]),
        (3, [(0, 1), (1, 2), (2, 3)]),
    ],
)
def test_slices_are_the_published_ones(length: int, expected: list[tuple[int, int]]) -> None:
    assert slice_bounds(length, 4) == expected


def cover(groups: list[Group], found: dict[str, Tensor]) -> dict[str, Tensor]:
    """How often each entry is in a group."""
    counts = {name: torch.zeros(tensor.shape) for name, tensor in found.items()}
    for group in groups:
        assert group.size == sum(piece.size for piece in group.pieces)
        for piece in group.pieces:
            assert piece.of(counts[piece.tensor]).numel() == piece.size
            piece.of(counts[piece.tensor]).add_(1)
    return counts


@pytest.mark.parametrize("mode", ["row", "column"])
def test_slices_cover_everything_that_has_a_dimension_once(mode: str) -> None:
    groups = sliced_groups(TOWER, mode=mode)  # type: ignore[arg-type]
    counts = cover(groups, TOWER)
    assert counts.pop("logit_scale") == 0
    assert all((count == 1).all() for count in counts.values())
    vectors = [group for group in groups if group.kind == "ln_1.weight" and group.block == 0]
    assert len(vectors) == (4 if mode == "row" else 1)
    assert vectors[0].name == "image.blocks.0.ln_1.weight" + ("[0:16]" if mode == "row" else "")
    assert sum(group.kind == "proj" for group in groups) == 4
    assert len({group.name for group in groups}) == len(groups)


@pytest.mark.parametrize("slices", [1, 4])
def test_matrices_stand_alone_and_small_tensors_join(slices: int) -> None:
    groups = matrix_groups(TOWER, slices)
    counts = cover(groups, TOWER)
    assert counts.pop("logit_scale") == 0
    assert all((count == 1).all() for count in counts.values())
    assert all(group.size >= 256 for group in groups)
    assert {group.name: group.size for group in groups} == {
        "image.blocks.0.attn.q_proj.weight": 4096,  # four slices of it would have less than 4,096 entries
        "text.proj": 256,
        "image.blocks.0 and 1: small tensors": 64 + 64 + 300,
        "image and text.blocks.0: small tensors": 64 + 128 + 256,
    }
    places = {group.name: (group.tower, group.block) for group in groups}
    assert places["image.blocks.0 and 1: small tensors"] == ("image", None)
    assert places["image and text.blocks.0: small tensors"] == (None, None)


def test_large_matrices_may_be_sliced() -> None:
    groups = matrix_groups(tensors(("text.blocks.2.mlp.fc.weight", (256, 64))), slices=4)
    assert [group.size for group in groups] == [4096] * 4
    assert groups[1].name == "text.blocks.2.mlp.fc.weight[64:128]"


def test_what_is_too_small_alone_stays_one_group() -> None:
    groups = matrix_groups(tensors(("context", (4, 16))))
    assert [(group.name, group.size) for group in groups] == [("context", 64)]
    assert entries(groups) == 64


def test_a_group_knows_where_its_tensor_stands() -> None:
    names = ("image.blocks.11.attn.q_proj.A", "backbone.text.ln_final.bias", "context")
    groups = sliced_groups(tensors(*((name, (2,)) for name in names)), slices=1)
    assert [(group.name, group.tower, group.block, group.kind) for group in groups] == [
        ("image.blocks.11.attn.q_proj.A", "image", 11, "attn.q_proj.A"),
        ("backbone.text.ln_final.bias", "text", None, "ln_final.bias"),
        ("context", None, None, "context"),
    ]
