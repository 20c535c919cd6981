"""Fixtures of the backbone's tests: a cache of their own, and tiny backbones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clipbench.backbone.clip import Backbone, build_backbone
from tests.backbone.tiny_backbones import TEXT, VISION, write_folder

torch.set_num_threads(1)  # the towers here are so small that more threads only wait for each other

Make = Callable[..., Backbone]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("CLIPBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "clipbench-cache"))


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
