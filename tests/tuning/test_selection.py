"""Selections: what matches, in which order, and what is said when nothing does."""

from __future__ import annotations

import pytest
from torch import nn

from clipbench.backbone.clip import describe_backbone
from clipbench.errors import ConfigError
from clipbench.tuning.selection import select, select_modules

NAME = "ViT-B-32/random"


@pytest.fixture(scope="module")
def backbone() -> nn.Module:
    return describe_backbone(NAME)


def test_all_blocks_in_order(backbone: nn.Module) -> None:
    assert list(select(backbone, "text", ["mlp.proj.bias"])) == [f"text.blocks.{i}.mlp.proj.bias" for i in range(12)]


def test_some_blocks_also_from_the_output(backbone: nn.Module) -> None:
    assert list(select(backbone, "image", ["ln_1.weight"], [0, -1])) == [
        "image.blocks.0.ln_1.weight",
        "image.blocks.11.ln_1.weight",
    ]


def test_patterns(backbone: nn.Module) -> None:
    names = select(backbone, "text", ["attn.[qv]_proj.bias"], [3])
    assert list(names) == ["text.blocks.3.attn.q_proj.bias", "text.blocks.3.attn.v_proj.bias"]


def test_a_pattern_that_matches_nothing_lists_near_names(backbone: nn.Module) -> None:
    with pytest.raises(ConfigError, match=r"mlp\.c_proj\.bias.*mlp\.proj\.bias"):
        select(backbone, "text", ["mlp.c_proj.bias"])


def test_a_block_that_does_not_exist(backbone: nn.Module) -> None:
    with pytest.raises(ConfigError, match="blocks 0 to 11, there is no block 12"):
        select(backbone, "text", ["mlp.proj.bias"], [12])


def test_norms_by_type(backbone: nn.Module) -> None:
    tensors = select_modules(backbone, "image", nn.LayerNorm)
    assert sum(p.numel() for p in tensors.values()) == 39_936
    assert not select_modules(describe_backbone("RN50/random"), "image", nn.LayerNorm)
