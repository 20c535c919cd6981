"""A tiny backbone, and nothing of the user's cache."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clipbench.backbone.clip import Backbone, build_backbone
from clipbench.backbone.view import BackboneView
from tests.backbone.tiny_backbones import TEXT, VISION, write_folder

torch.set_num_threads(1)  # the towers here are so small that more threads only wait for each other


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("CLIPBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "clipbench-cache"))


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    """Three image blocks, two text blocks, and the whole vocabulary of CLIP's tokenizer."""
    return build_backbone(write_folder(tmp_path / "tiny", VISION, TEXT | {"vocab_size": 49408}))


@pytest.fixture
def view(backbone: Backbone) -> BackboneView:
    """A view of it."""
    return backbone.view()
