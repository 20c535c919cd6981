"""The division of a user's images into train, val and test: made once, kept in a file, read ever after."""

from __future__ import annotations

import contextlib
import os
import random
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from clipbench import atomic
from clipbench.data.classnames import normal
from clipbench.data.paths import few
from clipbench.data.readers.zhou import dump, parse
from clipbench.data.splits import PARTS, Item, Split
from clipbench.errors import ConfigError, DataError, RecordError
from clipbench.randomness import key
from clipbench.regular_files import Fault, read_bytes, reason
from clipbench.resources import cache_dir

Shares = tuple[float, float, float]
Images = Mapping[str, Sequence[str]]
LARGEST = 2**29  # bytes of a split file


def parse_shares(split: str | Sequence[float]) -> Shares:
    """Shares of train, val and test.

    Raises:
        ConfigError: unless they are three numbers, train and test above 0, that sum to 1.

    Example:
        >>> parse_shares("0.5,0.2,0.3")
        (0.5, 0.2, 0.3)
    """
    try:
        shares = [float(share) for share in (split.split(",") if isinstance(split, str) else split)]
        train, val, test = shares
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"split must be three shares of train, val and test such as 0.5,0.2,0.3, but is '{split}'"
        ) from error
    if not (train > 0 and val >= 0 and test > 0 and abs(sum(shares) - 1) < 1e-6):
        raise ConfigError(
            "the shares of train, val and test must sum to 1, train and test above 0, "
            f"but are {train:g},{val:g},{test:g}"
        )
    return train, val, test


def divided(root: Path, folders: Mapping[str, str], images: Images, shares: Shares, seed: int) -> Split:
    """The division of class folders: read from its file where there is one, else made and written.

    Args:
        root: the folder of the class folders.
        folders: class name to its folder, in label order.
        images: class name to its images, relative to that folder.
        shares: of train, val and test.
        seed: of the division.

    Raises:
        DataError: the file is about other images, or can be kept nowhere.
    """
    file_name = "clipbench_split_" + "-".join(f"{share:g}" for share in shares) + f"_seed{seed}.json"
    elsewhere = cache_dir() / "splits" / f"{root.name}-{key(0, 'split file', str(root.resolve())):016x}"
    for path in (root / file_name, elsewhere / file_name):
        if os.path.lexists(path):
            split = parse(_content(path), path)
            _check_kept(root, path, split, folders, images)
            return Split.of({part: [_named(item) for item in split.part(part)] for part in PARTS})
    split = _divide(folders, images, shares, seed)
    path = _keep(root / file_name, elsewhere / file_name, dump(split))
    counts = ", ".join(f"{len(split.part(part)):,} {part}" for part in PARTS)
    print(f"clipbench: the images of {root} are split now ({counts}); the split is kept in {path}", file=sys.stderr)
    return split


def _divide(folders: Mapping[str, str], images: Images, shares: Shares, seed: int) -> Split:
    """Shuffles each class by itself and cuts it, at least one image for every part that has a share."""
    parts: dict[str, list[Item]] = {part: [] for part in PARTS}
    for label, (name, folder) in enumerate(folders.items()):
        paths = list(images[name])
        random.Random(key(seed, "image_folder", name)).shuffle(paths)  # noqa: S311 (a split, not a secret)
        val = max(round(len(paths) * shares[1]), 1) if shares[1] else 0
        train = min(max(round(len(paths) * shares[0]), 1), len(paths) - val - 1)
        cuts = {"train": paths[:train], "val": paths[train : train + val], "test": paths[train + val :]}
        for part, chosen in cuts.items():
            parts[part] += [Item(f"{folder}/{path}", label, name) for path in chosen]
    return Split.of(parts)


def _keep(path: Path, elsewhere: Path, data: bytes) -> Path:
    """Writes the file, into the cache where the folder of the images is read-only, as data folders often are."""
    with contextlib.suppress(RecordError):
        return atomic.write_bytes(path, data)
    try:
        return atomic.write_bytes(elsewhere, data)
    except RecordError as error:
        raise DataError(
            f"the split of {path.parent} can be kept neither there nor in {elsewhere.parent}: "
            "make one of them writable, or name a folder in CLIPBENCH_CACHE"
        ) from error


def _content(path: Path) -> bytes:
    try:
        return read_bytes(path, LARGEST)
    except Fault as error:
        raise DataError(f"the split file {path} {error}") from error
    except OSError as error:
        raise DataError(f"the split file {path} cannot be read: {reason(path, error)}") from error


def _named(item: Item) -> Item:
    return Item(item.path, item.label, normal(item.classname))


def _check_kept(root: Path, path: Path, split: Split, folders: Mapping[str, str], images: Images) -> None:
    """A split file must be about the images that are there: never a silent new split.

    It may be edited: which image is in which part is the user's matter, each in one.
    """
    right = {f"{folders[name]}/{image}": (label, name) for label, name in enumerate(folders) for image in images[name]}
    items = [item for part in PARTS for item in split.part(part)]
    listed = Counter(item.path for item in items)
    wrong = {item.path for item in items if right.get(item.path, item[1:]) != _named(item)[1:]}
    faults = [
        f"{len(found)} {what}: {few(sorted(found))}"
        for what, found in (
            ("images are gone", listed.keys() - right.keys()),
            ("images are new", right.keys() - listed.keys()),
            ("images stand twice", {image for image, times in listed.items() if times > 1}),
            ("images have another label or class name than their folder", wrong),
        )
        if found
    ]
    if faults:
        raise DataError(
            f"the images of {root} are not those of its split file {path}: "
            + "; ".join(faults)
            + "; delete that file to split anew"
        )
