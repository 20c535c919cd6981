"""Nothing of the user's cache in tests: a fixture that acts in every folder whose conftest imports it."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One cache for all tests of a run, which holds what was rendered or computed once."""
    folder = tmp_path_factory.getbasetemp() / "clipbench-cache"
    monkeypatch.setenv("CLIPBENCH_CACHE", str(folder))
    return folder
