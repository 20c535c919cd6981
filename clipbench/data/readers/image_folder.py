"""A folder of images by class: `train/ val/ test/` with class folders, or class folders alone, split once."""

from __future__ import annotations

import os
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from clipbench.data.cards import Card
from clipbench.data.paths import few, list_images, readable_image
from clipbench.data.readers.zhou import dump, parse
from clipbench.data.splits import PARTS, Item, Split
from clipbench.errors import ConfigError, DataError
from clipbench.randomness import key
from clipbench.resources import cache_dir


def read(card: Card, root: Path, splits_dir: Path | None = None) -> Split:
    """The split of a card with `reader: image_folder`; its options `split` and `split_seed` are those of `read_folder`.

    Raises:
        DataError: when the folder is not as described.
    """
    return read_folder(card.image_dir(root), card.options.get("split"), card.options.get("split_seed", 1))[0]


def read_folder(
    root: Path, split: str | Sequence[float] | None = None, split_seed: int = 1
) -> tuple[Split, tuple[str, ...], Path | None]:
    """The split of a folder, its class names (folder names, sorted), and the split file where one is used.

    Args:
        root: holds `train/`, `test/` and perhaps `val/` with the same class folders; with `split`, class folders.
        split: shares of train, val and test (`0.5,0.2,0.3`); written to a file once and read ever after.
        split_seed: of that split.

    Raises:
        ConfigError: when the shares make no sense, or are given for a folder that is split already.
        DataError: when the folder is not as described; everything that is wrong in one message.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise DataError(f"there is no folder {root}")
    divided = [part for part in PARTS if (root / part).is_dir() and _folders(root / part)]
    if split is not None:
        shares = parse_shares(split)
        if {"train", "test"} <= set(divided):
            raise ConfigError(
                f"{root} is split already (it holds train/ and test/ with class folders): leave out 'split'"
            )
        return _read_undivided(root, shares, split_seed)
    if "train" not in divided or "test" not in divided:
        found = _folders(root)
        raise DataError(
            f"{root} must hold train/ and test/ (and perhaps val/) with one folder per class, but holds "
            f"{few([f'{name}/' for name in found]) or 'no folder'}; if these {len(found)} folders are the classes, "
            "give split=0.5,0.2,0.3 and split_seed=1 to have them split once"
        )
    return _read_divided(root, divided)


def parse_shares(split: str | Sequence[float]) -> tuple[float, float, float]:
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
    except ValueError as error:
        raise ConfigError(
            f"split must be three shares of train, val and test such as 0.5,0.2,0.3, but is '{split}'"
        ) from error
    if not (train > 0 and val >= 0 and test > 0 and abs(sum(shares) - 1) < 1e-6):
        raise ConfigError(
            "the shares of train, val and test must sum to 1, train and test above 0, "
            f"but are {train:g},{val:g},{test:g}"
        )
    return train, val, test


def _folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _read_divided(root: Path, divided: list[str]) -> tuple[Split, tuple[str, ...], None]:
    """`train/ val/ test/` with class folders; the classes are those of train."""
    names = _folders(root / "train")
    faults = []
    parts: dict[str, tuple[Item, ...]] = {part: () for part in PARTS}
    for part in divided:
        unknown = sorted(set(_folders(root / part)) - set(names))
        if unknown:
            faults.append(f"{len(unknown)} class folders of {part}/ do not exist in train/: {few(unknown)}")
        wanted = names if part == "train" else [name for name in names if (root / part / name).is_dir()]
        images, found = _class_images(root / part, wanted)
        faults += found
        parts[part] = tuple(
            Item(f"{part}/{name}/{path}", names.index(name), name) for name in wanted for path in images.get(name, ())
        )
    _raise(root, names, faults)
    return Split.of(parts), tuple(names), None


def _class_images(base: Path, names: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Image paths of each class, and what is wrong: a class without an image that can be opened."""
    images, faults = {}, []
    for name in names:
        paths, others = list_images(base / name)
        if not any(readable_image(base / name / path) for path in paths):
            there = paths + others
            faults.append(
                f"the class folder {base / name} holds no readable image "
                + (f"({len(there)} files: {few(there, 3)})" if there else "(it is empty)")
            )
        images[name] = paths
    return images, faults


def _raise(root: Path, names: Sequence[str], faults: list[str]) -> None:
    if len(names) < 2:
        faults = [f"{len(names)} class folders; at least two are needed", *faults]
    if faults:
        raise DataError(f"{root} cannot be used: " + "; ".join(faults))


def _read_undivided(root: Path, shares: tuple[float, float, float], seed: int) -> tuple[Split, tuple[str, ...], Path]:
    """Class folders alone: the split file is read where there is one, else written."""
    names = _folders(root)
    images, faults = _class_images(root, names)
    needed = 3 if shares[1] else 2
    faults += [
        f"the class folder {root / name} has {len(paths)} images, too few for {needed} parts"
        for name, paths in images.items()
        if 0 < len(paths) < needed
    ]
    _raise(root, names, faults)
    file_name = "clipbench_split_" + "-".join(f"{share:g}" for share in shares) + f"_seed{seed}.json"
    elsewhere = cache_dir() / "splits" / f"{root.name}-{key(0, 'split file', str(root.resolve())):016x}"
    for path in (root / file_name, elsewhere / file_name):
        if path.is_file():
            split = parse(path.read_bytes(), path)
            _same_images(root, path, split, names, images)
            return split, tuple(names), path
    split = _divide(names, images, shares, seed)
    try:
        path = _write(root / file_name, dump(split))
    except OSError:  # data folders are often read-only
        elsewhere.mkdir(parents=True, exist_ok=True)
        path = _write(elsewhere / file_name, dump(split))
    counts = ", ".join(f"{len(split.part(part)):,} {part}" for part in PARTS)
    print(f"clipbench: the images of {root} are split now ({counts}); the split is kept in {path}", file=sys.stderr)
    return split, tuple(names), path


def _divide(names: Sequence[str], images: dict[str, list[str]], shares: tuple[float, float, float], seed: int) -> Split:
    """Shuffles each class by itself and cuts it, at least one image for every part that has a share."""
    parts: dict[str, list[Item]] = {part: [] for part in PARTS}
    for label, name in enumerate(names):
        paths = list(images[name])
        random.Random(key(seed, "image_folder", name)).shuffle(paths)  # noqa: S311 (a split, not a secret)
        val = max(round(len(paths) * shares[1]), 1) if shares[1] else 0
        train = min(max(round(len(paths) * shares[0]), 1), len(paths) - val - 1)
        cuts = {"train": paths[:train], "val": paths[train : train + val], "test": paths[train + val :]}
        for part, chosen in cuts.items():
            parts[part] += [Item(f"{name}/{path}", label, name) for path in chosen]
    return Split.of(parts)


def _same_images(root: Path, path: Path, split: Split, names: Sequence[str], images: dict[str, list[str]]) -> None:
    """A split file must be about the images that are there: never a silent new split."""
    listed = {item.path for part in PARTS for item in split.part(part)}
    there = {f"{name}/{image}" for name in names for image in images[name]}
    faults = [
        f"{len(found)} {what}: {few(sorted(found))}"
        for what, found in (("images are gone", listed - there), ("images are new", there - listed))
        if found
    ]
    if faults:
        raise DataError(
            f"the images of {root} are not those of its split file {path}: "
            + "; ".join(faults)
            + "; delete that file to split anew"
        )


def _write(path: Path, data: bytes) -> Path:
    """Writes a file in one step."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path
