"""ImageNet: folders by synset below `train/` and `val/`; the validation set is the test set, there is no val part."""

from __future__ import annotations

from pathlib import Path

from clipbench.data.card import Card
from clipbench.data.readers.class_folders import read_parts
from clipbench.data.splits import Split


def read(card: Card, root: Path, splits_dir: Path | None = None) -> Split:
    """The split: a label is the rank of the synset, file names are sorted inside a class.

    The reference lists files in the order of the file system, so that its ImageNet draws differ from machine to machine
    and no paper's can be met; sorted names give the same draw everywhere.

    Raises:
        DataError: when folders are missing or other ones are there, or `classnames.txt` has other names.
    """
    return read_parts(card, root, splits_dir, {"train": "train/", "test": "val/"})
