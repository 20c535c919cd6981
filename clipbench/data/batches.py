"""Batches: several images in one uint8 array, prepared in one go, with labels and positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from clipbench.data.augmentation import ImagePolicy, augmented_image, plain_image
from clipbench.data.decoding import DamagedImages
from clipbench.data.images import ImageStore, Pixels
from clipbench.data.splits import Item
from clipbench.errors import DataError


class Batch(NamedTuple):
    """What a loader yields.

    Attributes:
        image: uint8 (B, 3, H, W); the backbone normalises it.
        label: int64 (B,), counted inside the split.
        index: int64 (B,), position in the split's list of images.
        split: which images these are: "train", "val", or the name of a test split ("base", "novel", "all").
    """

    image: Tensor
    label: Tensor
    index: Tensor  # type: ignore[assignment]  # tuples have a method of this name, which nobody calls here
    split: str


class AugmentedImages(Dataset[Batch]):
    """The few-shot images, each as a random crop.

    Args:
        items: the images, in draw order.
        labels: label of each image inside the split.
        pixels: decoded images in the same order.
        policy: how they are prepared.
        seed: the train seed.
        dataset: the key of the dataset.
    """

    def __init__(
        self, items: Sequence[Item], labels: Sequence[int], pixels: Pixels, policy: ImagePolicy, seed: int, dataset: str
    ) -> None:
        self.items, self.pixels, self.policy = tuple(items), pixels, policy
        self.labels = np.asarray(labels, dtype=np.int64)
        self.seed, self.dataset = seed, dataset

    def __len__(self) -> int:
        return len(self.items)

    def __getitems__(self, pairs: Sequence[tuple[int, int]]) -> Batch:
        return self.batch(pairs)

    def __getitem__(self, pair: tuple[int, int]) -> Batch:
        return self.batch([pair])

    def batch(self, pairs: Sequence[tuple[int, int]], number: int = 0) -> Batch:
        """Some images, augmented.

        Args:
            pairs: (position, epoch) of each image.
            number: of the augmented image, for methods that want several of an image in one step.
        """

        def write(position: int, epoch: int, out: np.ndarray) -> None:
            path = self.items[position].path
            augmented_image(self.pixels[position], self.policy, self.seed, self.dataset, path, epoch, number, out)

        return _batch(pairs, self.labels, self.policy.size, write, "train")


class UnseenImages(Dataset[Batch]):
    """The batches of a dataset without its images, for methods that train on features of them alone.

    Args:
        images: whose labels and order.
    """

    def __init__(self, images: AugmentedImages) -> None:
        self.labels = torch.from_numpy(images.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, pairs: Sequence[tuple[int, int]]) -> Batch:
        index = torch.tensor([position for position, _ in pairs], dtype=torch.int64)
        return Batch(torch.zeros(len(pairs), 3, 0, 0, dtype=torch.uint8), self.labels[index], index, "train")

    def __getitem__(self, pair: tuple[int, int]) -> Batch:
        return self.__getitems__([pair])


class PlainImages(Dataset[Batch]):
    """Images without augmentation.

    Args:
        items: the images, in the order of the split file.
        labels: label of each image inside the split.
        pixels: decoded images in the same order.
        policy: how they are prepared.
        split: "train", "val" or the name of a test split; every batch says it.
        closed: asked before every batch; when true, the images may not be looked at now.
    """

    def __init__(
        self,
        items: Sequence[Item],
        labels: Sequence[int],
        pixels: Pixels,
        policy: ImagePolicy,
        split: str,
        closed: Callable[[], bool] | None = None,
    ) -> None:
        self.items, self.pixels, self.policy = tuple(items), pixels, policy
        self.labels = np.asarray(labels, dtype=np.int64)
        self.split, self.closed = split, closed

    def __getstate__(self) -> dict[str, Any]:
        # The question leads to the trainer, which does not travel to a worker process; the answer does.
        asked = None if self.closed is None else _Answer(self.closed())
        return {**self.__dict__, "closed": asked}

    def __len__(self) -> int:
        return len(self.items)

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        if self.closed is not None and self.closed():
            raise DataError("test images cannot be opened during fit")

        def write(position: int, epoch: int, out: np.ndarray) -> None:
            plain_image(self.pixels[position], self.policy, out)

        try:
            return _batch([(position, 0) for position in positions], self.labels, self.policy.size, write, self.split)
        except DamagedImages:
            if isinstance(self.pixels, ImageStore):
                self.pixels.refuse_damaged()  # names and counts all of them, not only the first
            raise

    def __getitem__(self, position: int) -> Batch:
        return self.__getitems__([position])


class _Answer:
    def __init__(self, closed: bool) -> None:
        self.closed = closed

    def __call__(self) -> bool:
        return self.closed


def _batch(
    pairs: Sequence[tuple[int, int]],
    labels: np.ndarray,
    size: int,
    write: Callable[[int, int, np.ndarray], None],
    split: str,
) -> Batch:
    images = np.empty((len(pairs), 3, size, size), dtype=np.uint8)
    for (position, epoch), out in zip(pairs, images, strict=True):
        write(position, epoch, out)
    index = np.fromiter((position for position, _ in pairs), dtype=np.int64, count=len(pairs))
    return Batch(torch.from_numpy(images), torch.from_numpy(labels[index]), torch.from_numpy(index), split)


def as_is(batch: Any) -> Any:
    """Collation is done already: the fetched batch itself."""
    return batch
