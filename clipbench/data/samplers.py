"""Which images form the batches of an epoch or of several passes: never a matter of global state."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from clipbench.errors import ConfigError
from clipbench.randomness import numpy_generator


def epoch_order(length: int, seed: int, dataset: str, epoch: int) -> np.ndarray:
    """The order of an epoch: a permutation of `range(length)`, int64.

    It sorts the raw 64-bit numbers of the generator, whose stream NumPy guarantees, unlike that of its shuffle.
    """
    generator = numpy_generator(seed, "order", dataset, epoch)
    return np.argsort(generator.bit_generator.random_raw(length), kind="stable")


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (position, epoch) pairs.

    The epoch travels with the position, so a worker process that lives for many epochs needs no message. Lightning sets
    the epoch through `sampler.set_epoch`; a plain loop calls `set_epoch` itself, else every pass is the same epoch.

    Args:
        length: number of images.
        batch_size: images per batch.
        seed: the train seed.
        dataset: the key of the dataset.

    Source: Dassl's `RandomSampler` without replacement; `drop_last` where there is a full batch at all.
    """

    def __init__(self, length: int, batch_size: int, seed: int, dataset: str) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, not {batch_size}")
        self.length, self.batch_size, self.seed, self.dataset = length, batch_size, seed, dataset
        self.drop_last = length >= batch_size
        self.epoch = 0

    @property
    def sampler(self) -> EpochBatches:
        """Where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch, from 0, of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        whole = self.length // self.batch_size
        return whole if self.drop_last else -(-self.length // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self.epoch
        order = epoch_order(self.length, self.seed, self.dataset, epoch).tolist()
        for batch in range(len(self)):
            start = batch * self.batch_size
            yield [(position, epoch) for position in order[start : start + self.batch_size]]


class PassBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (position, pass) pairs: every image once a pass, in order, pass by pass; none is dropped.

    A pass is an epoch of the training: its crops are those of that epoch.

    Args:
        length: number of images.
        batch_size: images per batch.
        passes: how many.
    """

    def __init__(self, length: int, batch_size: int, passes: int) -> None:
        self.length, self.batch_size, self.passes = length, batch_size, passes

    def __len__(self) -> int:
        return -(-self.length * self.passes // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        total = self.length * self.passes
        for start in range(0, total, self.batch_size):
            yield [divmod(n, self.length)[::-1] for n in range(start, min(start + self.batch_size, total))]
