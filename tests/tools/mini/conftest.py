"""One cache and one set of measurements for all tests of how the suite was made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tools.mini.measure import Bench


@pytest.fixture(scope="session")
def mini_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty cache, rendered into once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(mini_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPBENCH_CACHE", str(mini_cache))


@pytest.fixture(scope="session")
def bench() -> Iterator[Bench]:
    """The shipped weights on the test pictures."""
    import torch

    from tools.mini.measure import Bench

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Bench()
    torch.set_num_threads(threads)
