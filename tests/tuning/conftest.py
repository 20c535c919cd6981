"""A tiny backbone, and nothing of the user's cache."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clipbench.backbone.clip import Backbone, build_backbone
from clipbench.backbone.view import BackboneView
from tests.backbone.tiny_backbones import TEXT, VISION, write_folder
from tests.caches import own_cache as own_cache

torch.set_num_threads(1)  # the towers here are so small that more threads only wait for each other


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    """Three image blocks, two text blocks, and the whole vocabulary of CLIP's tokenizer."""
    return build_backbone(write_folder(tmp_path / "tiny", VISION, TEXT | {"vocab_size": 49408}))


@pytest.fixture
def view(backbone: Backbone) -> BackboneView:
    """A view of it."""
    return backbone.view()
