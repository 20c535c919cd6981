"""Where tensors stand, read off their names."""

from __future__ import annotations

import math

import pytest

from clipbench.analysis.positions import position_of
from clipbench.backbone.clip import load_backbone


@pytest.mark.parametrize(
    ("name", "group", "block", "depth"),
    [
        ("text.blocks.3.mlp.proj.bias", "text MLP bias", 3, 3.5),
        ("image.blocks.0.ln_1.weight", "image LayerNorm weight", 0, 0),
        ("image.blocks.11.ln_2.bias", "image LayerNorm bias", 11, 11.5),
        ("image.ln_pre.weight", "image LayerNorm weight", None, -1),
        ("image.ln_post.weight", "image LayerNorm weight", None, math.inf),
        ("text.ln_final.bias", "text LayerNorm bias", None, math.inf),
        ("text.blocks.2.attn.q_proj.weight", "text attention weight", 2, 2),
        ("image.patch_embed.weight", "image patch_embed.weight", None, -1),
        ("image.proj", "image proj", None, math.inf),
        ("text.positional_embedding", "text positional_embedding", None, -1),
        ("image.blocks.1.ls_2", "image other ls_2", 1, 1.5),
        ("logit_scale", "logit_scale", None, math.inf),
        ("image.trunk.blocks.4.norm2.weight", "image LayerNorm weight", 4, 4.5),
        ("image.trunk.bn1.weight", "image BatchNorm weight", None, -1),
    ],
)
def test_place(name: str, group: str, block: int | None, depth: float) -> None:
    place = position_of(name)
    assert (place.group, place.block, place.depth) == (group, block, depth)


@pytest.mark.parametrize(
    ("name", "group", "block"),
    [
        ("context", "added context", None),
        ("image.blocks.2.attn.q_proj.A", "image added A", 2),
        ("image.blocks.0.mlp.proj.adapters.1.down.weight", "image added down.weight", 0),
        ("text.blocks.1.attn.q_proj.layer.lora_A.default.weight", "text added lora_A.weight", 1),
    ],
)
def test_what_a_method_added_has_groups_of_its_own(name: str, group: str, block: int | None) -> None:
    place = position_of(name, added=True)
    assert (place.group, place.block) == (group, block)


def test_every_layer_norm_of_a_tower_is_found_and_nothing_else() -> None:
    backbone = load_backbone("mini")
    names = [name for name, _ in backbone.named_parameters()]
    norms = {name for name in names if "LayerNorm" in position_of(name).kind}
    assert norms == {name for name in names if ".ln_" in name}
    assert len({position_of(name).depth for name in norms if name.startswith("image.") and "weight" in name}) == 10
