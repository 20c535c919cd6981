"""One cache and one set of measurements for all tests of how the suite was made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.caches import own_cache as own_cache

if TYPE_CHECKING:
    from tools.mini.measure import Bench


@pytest.fixture(scope="session")
def bench() -> Iterator[Bench]:
    """The shipped weights on the test pictures."""
    import torch

    from tools.mini.measure import Bench

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Bench()
    torch.set_num_threads(threads)
