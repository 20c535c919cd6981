"""Fixtures of the backbone's tests: a cache of their own, and tiny backbones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clipbench.backbone import catalogue
from clipbench.backbone.clip import Backbone, build_backbone
from tests.backbone.tiny_backbones import TEXT, VISION, write_folder
from tests.caches import own_cache as own_cache

torch.set_num_threads(1)  # the towers here are so small that more threads only wait for each other

Make = Callable[..., Backbone]


@pytest.fixture
def tiny(tmp_path: Path) -> Make:
    """A function from changes of the configs to a tiny backbone of one's own."""
    made = 0

    def make(vision: dict[str, Any] | None = None, text: dict[str, Any] | None = None, **model: Any) -> Backbone:
        nonlocal made
        made += 1
        return build_backbone(
            write_folder(tmp_path / f"tiny{made}", VISION | (vision or {}), TEXT | (text or {}), **model)
        )

    return make


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A folder with config and weights."""
    write_folder(tmp_path / "clip", VISION, TEXT)
    return tmp_path / "clip"


@pytest.fixture
def architecture(written: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same as an architecture `Tiny-8` that open_clip would know, with an OpenAI tag."""
    config = json.loads((written / "open_clip_config.json").read_text())["model_cfg"]
    file = written / "Tiny-8.json"
    file.write_text(json.dumps(config))
    tags = {"openai": {"hf_hub": "nobody/tiny_clip.openai/", "url": "", "quick_gelu": True, "mean": None}}
    monkeypatch.setattr(catalogue, "architectures", lambda: {"Tiny-8": file})
    monkeypatch.setattr(catalogue, "pretrained_tags", lambda: {"Tiny-8": tags})
    return "Tiny-8"
