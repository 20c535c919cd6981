"""The few-shot draw: which images of a dataset a seed gives, equal to the reference implementation image by image."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clipbench.data.splits import Item, Split, digest, per_class
from clipbench.errors import ConfigError, DataError

if TYPE_CHECKING:
    from pathlib import Path

    from clipbench.data.card import Card

VAL_SHOTS = 4  # the reference never draws more than four val images of a class
__all__ = ["VAL_SHOTS", "Draw", "digest", "draw", "draw_listing"]


@dataclass(frozen=True)
class Draw:
    """The few-shot images, in draw order, and their positions in the split's lists."""

    train: tuple[Item, ...]
    val: tuple[Item, ...]
    train_indices: tuple[int, ...]
    val_indices: tuple[int, ...]

    @property
    def digest(self) -> str:
        """SHA-256 over both parts."""
        return digest((*self.train, Item("", -1, ""), *self.val))


def draw(split: Split, shots: int, seed: int) -> Draw:
    """Draws over all classes, before any restriction to base or novel.

    Classes are visited in order of first appearance in the file, not in label order: Flowers102 and StanfordCars
    differ otherwise from the second class on. Train comes first, val goes on with the same generator. A class with
    fewer images than `shots` gives all of them, in file order.

    Where the data name the images of this seed (a manifest's column `draws`), these alone are drawn from: exactly
    these, in file order, when there are at most `shots` of them in a class.

    Args:
        split: the dataset, over all classes.
        shots: images per class, at least 1; val gets min(shots, 4).
        seed: of the draw.

    Raises:
        ConfigError: when `shots` is below 1 or `seed` below 0.
        DataError: when there is no train image, or a marked seed leaves a class without one.

    Source:
        `reference/protocol.md` 2.1 (Dassl `base_dataset.py`, CoOp `datasets/*.py`).
    """
    if shots < 1:
        raise ConfigError(f"shots is {shots}; at least one image per class is needed")
    if seed < 0:
        raise ConfigError(f"seed is {seed}; it must be at least 0, since the generator would draw as for {-seed}")
    if not split.train:
        raise DataError("nothing can be drawn: this dataset has no train images (it is a test set only)")
    rng = random.Random(seed)  # noqa: S311 (the reference's generator)
    allowed = split.marks.get(seed, (None, None))
    train = _draw(split.train, shots, rng, allowed[0])
    val = _draw(split.val, min(shots, VAL_SHOTS), rng, allowed[1] or None)
    lacking = {item.label: item.classname for item in split.train}
    for position in train:
        lacking.pop(split.train[position].label, None)
    if lacking:
        raise DataError(
            f"the images marked for seed {seed} leave out {len(lacking)} classes, the first is {min(lacking.items())}"
        )
    return Draw(
        train=tuple(split.train[position] for position in train),
        val=tuple(split.val[position] for position in val),
        train_indices=tuple(train),
        val_indices=tuple(val),
    )


def _draw(items: tuple[Item, ...], shots: int, rng: random.Random, allowed: tuple[int, ...] | None) -> list[int]:
    """Positions drawn from a list; `allowed` restricts them to marked ones."""
    drawn: list[int] = []
    marked = None if allowed is None else set(allowed)
    for positions in per_class(items).values():
        if marked is not None:
            positions = [position for position in positions if position in marked]
        enough = len(positions) > shots if marked is not None else len(positions) >= shots
        drawn += rng.sample(positions, shots) if enough else positions
    return drawn


def draw_listing(
    card: Card, shots: int = 16, seed: int = 1, root: Path | None = None, splits_dir: Path | None = None
) -> dict[str, list[dict[str, Any]]]:
    """What `clipbench data draw` prints: `{"train": [{"path", "label"} ...], "val": [...]}` in draw order.

    Args:
        card: the dataset.
        shots: images per class.
        seed: of the draw.
        root: the data root; None means the usual one.
        splits_dir: a folder with split files only (plain or `.gz`); the images are not needed then.

    Raises:
        DataError: when the split cannot be read.
    """
    from clipbench.data.readers import read_split
    from clipbench.resources import data_root

    drawn = draw(read_split(card, root or data_root(), splits_dir), shots, seed)
    return {
        part: [{"path": item.path, "label": item.label} for item in items]
        for part, items in (("train", drawn.train), ("val", drawn.val))
    }
