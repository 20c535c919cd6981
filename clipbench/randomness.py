"""Random numbers by name: every generator is keyed by (seed, purpose ...), none comes from global state."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def key(seed: int, *purpose: str | int) -> int:
    """A 63-bit key of the seed and the purpose; equal on every machine and version.

    Example:
        >>> key(1, "view", "dtd", "banded/banded_0117.jpg", 0) == key(1, "view", "dtd", "banded/banded_0117.jpg", 0)
        True
    """
    text = "\x1f".join([str(int(seed)), *map(str, purpose)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def numpy_generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """A private NumPy generator (PCG64) for one purpose."""
    return np.random.Generator(np.random.PCG64(key(seed, *purpose)))


def torch_generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A private torch generator on the CPU for one purpose."""
    import torch

    return torch.Generator().manual_seed(key(seed, *purpose))


@contextmanager
def seeded(seed: int, *purpose: str | int) -> Iterator[None]:
    """Within this context torch's global CPU generator is seeded for one purpose; afterwards it is as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key(seed, *purpose))
        yield
