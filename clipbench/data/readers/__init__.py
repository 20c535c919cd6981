"""Readers: from a card and the files on disk to a split; one file per layout, named in the card."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from clipbench.data.splits import Split, differences
from clipbench.errors import DataError, UnknownName

if TYPE_CHECKING:
    from collections.abc import Callable

    from clipbench.data.card import Card

READERS = {
    "zhou_json": "clipbench.data.readers.zhou:read",
    "fgvc": "clipbench.data.readers.fgvc:read",
    "imagenet": "clipbench.data.readers.imagenet:read",
    "class_folders": "clipbench.data.readers.class_folders:read",
    "mini": "clipbench.data.readers.rendered:read",
    "manifest": "clipbench.data.readers.manifest:read",
    "image_folder": "clipbench.data.readers.image_folder:read",
}


def reader(name: str) -> Callable[[Card, Path, Path | None], Split]:
    """The function of a reader.

    Raises:
        UnknownName: when there is none of that name.
    """
    if name not in READERS:
        raise UnknownName("reader", name, READERS)
    module, function = READERS[name].split(":")
    found: Callable[[Card, Path, Path | None], Split] = getattr(importlib.import_module(module), function)
    return found


def read_split(card: Card, root: Path | str, splits_dir: Path | str | None = None) -> Split:
    """The split of a dataset, checked against its card: class names, labels and counts.

    Args:
        card: the dataset.
        root: the data root.
        splits_dir: a folder that holds split files only (plain or `.gz`); no image is looked for then.

    Raises:
        DataError: when a file is missing or differs, or the split is not the one that the card describes; all
            differences in one message. (`clipbench.data.status.open_split` also looks for every image and says
            what to download.)
    """
    split = reader(card.reader)(card, Path(root), Path(splits_dir) if splits_dir is not None else None)
    found = differences(card, split)
    if found:
        raise DataError(f"the files of '{card.id}' are not the split that its card describes: " + "; ".join(found))
    return split
