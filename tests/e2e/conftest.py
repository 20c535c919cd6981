"""Small benches, in a results folder of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from clipbench.commands import main

SMALL = ["--set", "trainer.max_epochs=1", "--shots", "2", "--jobs", "1"]


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., int]:
    """Run `clipbench bench` with one epoch and two shots; returns the exit status."""

    def run(*words: str) -> int:
        return main(["bench", "--results", str(tmp_path / "runs"), *SMALL, *words])

    return run
