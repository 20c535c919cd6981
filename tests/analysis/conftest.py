"""Small fits on the embedded suite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from clipbench.testing.subject import Subject

SMALL = ["--datasets", "eurosat", "--seeds", "1", "--shots", "2", "--set", "trainer.max_epochs=1", "--every", "2"]


@pytest.fixture
def subject(tmp_path: Path) -> Callable[..., Subject]:
    """A recipe on eurosat: two epochs, four shots."""

    def make(recipe: str = "clipfit", **settings: object) -> Subject:
        return Subject(recipe, tmp_path, settings=settings)

    return make
