"""A folder of images by class: `train/ val/ test/` with class folders, or class folders alone, split once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clipbench.data.card import Card
from clipbench.data.classnames import as_prompted, name_faults, normal
from clipbench.data.paths import few
from clipbench.data.readers.divide import Shares, divided, parse_shares
from clipbench.data.splits import PARTS, Item, Split
from clipbench.data.walk import (
    Found,
    Identity,
    find_images,
    has_ending,
    is_text,
    passed_over,
    passed_over_notes,
    same_file,
    shown,
)
from clipbench.errors import ConfigError, DataError

NAMED = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


def read(card: Card, root: Path, splits_dir: Path | None = None) -> Split:
    """The split of a card with `reader: image_folder`; its options `split` and `split_seed` are those of `read_folder`.

    Raises:
        DataError: when the folder is not as described.
    """
    return read_folder(card.image_dir(root), card.options.get("split"), card.options.get("split_seed", 1))[0]


def read_folder(
    root: Path | str, split: str | Sequence[float] | None = None, split_seed: int = 1
) -> tuple[Split, tuple[str, ...]]:
    """The split of a folder, and its class names (folder names, sorted).

    Args:
        root: holds `train/`, `test/` and perhaps `val/` with the same class folders (`valid/`, `validation/`,
            `training/`, `testing/` and capitals are understood); with `split`, class folders.
        split: shares of train, val and test (`0.5,0.2,0.3`); written to a file once and read ever after.
        split_seed: of that split.

    Raises:
        ConfigError: when the shares make no sense, or are given for a folder that is split already.
        DataError: when the folder is not as described; everything that is wrong in one message.
    """
    if not os.path.isdir(os.path.expanduser(root)):  # no exception for a name that is too long
        raise DataError(f"there is no folder '{root}'")
    root = Path(root).expanduser()
    parts = _part_folders(root)
    there = " and ".join(f"{folder}/" for part, folder in parts.items() if part != "val")
    if split is not None:
        shares = parse_shares(split)
        if {"train", "test"} <= set(parts):
            raise ConfigError(f"{root} is split already (it holds {there} with class folders): leave out 'split'")
        return _read_undivided(root, shares, split_seed)
    if "train" not in parts or "test" not in parts:
        raise DataError(
            f"{root} must hold train/ and test/ (and perhaps val/) with one folder per class, but {_holds(root)}"
        )
    return _read_divided(root, parts)


def _folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not passed_over(path.name))


def _holds(root: Path) -> str:
    """What a folder holds that is not divided into parts, and what to do about it."""
    found = _folders(root)
    bare = [
        name for name in found if any(name.lower() in known for known in NAMED.values()) and not _folders(root / name)
    ]
    if bare:
        return f"{' and '.join(f'{name}/' for name in bare)} {'holds' if len(bare) == 1 else 'hold'} no class folder"
    if not found:
        return "holds no folder"
    return (
        f"holds {few([f'{shown(name)}/' for name in found])}; if these {len(found)} folders are the classes, "
        "give split=0.5,0.2,0.3 and split_seed=1 to have them split once"
    )


def _part_folders(root: Path) -> dict[str, str]:
    """The folder of each part, under one of the names that it is known by.

    Raises:
        DataError: two of them are there.
    """
    parts, names = {}, _folders(root)
    for part, known in NAMED.items():
        found = [name for name in names if name.lower() in known and _folders(root / name)]
        if len(found) > 1:
            both = " and ".join(f"{name}/" for name in found)
            raise DataError(f"{root} holds {both}, which both mean {part}: keep one of them there")
        if found:
            parts[part] = found[0]
    return parts


@dataclass
class _Classes:
    """The class folders of one part, or of a folder that is not divided.

    Attributes:
        folders: class name to its folder.
        images: class name to its images and what each is on the disk.
        faults: what is wrong.
        notes: what was passed over.
        nested: class folders whose images lie in folders inside.
    """

    base: Path
    prefix: str
    folders: dict[str, str] = field(default_factory=dict)
    images: dict[str, dict[str, Identity]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    nested: list[str] = field(default_factory=list)

    def files(self) -> dict[str, Identity]:
        """All images by their path below the root."""
        return {
            f"{self.prefix}{self.folders[name]}/{path}": identity
            for name, images in self.images.items()
            for path, identity in images.items()
        }


def _look(root: Path, prefix: str = "") -> _Classes:
    """The classes below a folder, with everything that is wrong or passed over."""
    found = _Classes(root / prefix, prefix)
    for folder in _folders(found.base):
        if not is_text(folder):
            found.faults.append(f"the name of the class folder {shown(str(found.base / folder))} is not UTF-8")
        elif normal(folder) in found.folders:
            found.faults.append(f"two class folders of {found.base} are called {folder}, in two Unicode forms")
        else:
            found.folders[normal(folder)] = folder
    passed, repeated = Found(), 0
    for name, folder in found.folders.items():
        listed = find_images(found.base / folder)
        found.faults += listed.faults
        passed.others += [f"{prefix}{folder}/{path}" for path in listed.others]
        passed.loops += [f"{prefix}{folder}/{path}" for path in listed.loops]
        again = {path for group in same_file(listed.images) for path in group[1:]}
        repeated += len(again)
        found.images[name] = {path: identity for path, identity in listed.images.items() if path not in again}
        found.faults += _unreadable(found.base / folder, listed)
        if inner := sorted({path.partition("/")[0] for path in found.images[name] if "/" in path}):
            found.nested.append(f"{prefix}{folder}/ ({few([f'{one}/' for one in inner], 3)})")
    stray, lost = _beside(found.base)
    found.faults += [f"{found.base / name}: the link leads nowhere" for name in lost]
    if stray:
        found.notes.append(
            f"{len(stray)} images of {found.base} lie in no class folder and are not read: {few(stray, 3)}"
        )
    found.notes += passed_over_notes(passed)
    if repeated:
        found.notes.append(f"{repeated} files of {found.base} are links to an image of the same class, taken once")
    return found


def _beside(base: Path) -> tuple[list[str], list[str]]:
    """Images that lie beside the class folders, and links there that lead nowhere."""
    entries = sorted((path for path in base.iterdir() if not passed_over(path.name)), key=lambda path: path.name)
    stray = [path.name for path in entries if has_ending(path.name) and path.is_file()]
    return stray, [path.name for path in entries if path.is_symlink() and not path.exists()]


def _unreadable(folder: Path, listed: Found) -> list[str]:
    """A class folder of which no image can be opened."""
    from clipbench.data.decoding import check_header

    if listed.faults or not all(check_header(folder / path) for path in listed.images):
        return []
    files = [*listed.images, *listed.others]
    there = f"{len(files)} files: {few(files, 3)}" if files else "it is empty"
    return [f"the class folder {folder} holds no readable image ({there})"]


def _read_divided(root: Path, parts: Mapping[str, str]) -> tuple[Split, tuple[str, ...]]:
    """`train/ val/ test/` with class folders; the classes are those of train."""
    looked = {part: _look(root, f"{parts[part]}/") for part in PARTS if part in parts}
    names = list(looked["train"].folders)
    label = {name: number for number, name in enumerate(names)}
    faults = [fault for found in looked.values() for fault in found.faults]
    notes = _notes(list(looked.values()))
    items: dict[str, list[Item]] = {}
    for part, found in looked.items():
        if unknown := [name for name in found.folders if name not in label]:
            faults.append(
                f"{len(unknown)} class folders of {parts[part]}/ do not exist in {parts['train']}/: "
                + few([_with_nearest(name, names) for name in unknown])
            )
        if lacking := [name for name in names if name not in found.folders]:
            notes.append(f"{parts[part]}/ has no images of {len(lacking)} of {len(names)} classes: {few(lacking)}")
        items[part] = [
            Item(f"{parts[part]}/{folder}/{path}", label[name], name)
            for name, folder in found.folders.items()
            if name in label
            for path in found.images[name]
        ]
    faults += _in_two_places(list(looked.values()))
    _raise(root, names, faults)
    if beside := [name for name in _folders(root) if name not in parts.values()]:
        notes.append(
            f"{few([f'{name}/' for name in beside])} beside {few([f'{name}/' for name in parts.values()])} is not read"
        )
    return Split.of(items, notes=notes), tuple(names)


def _notes(looked: Sequence[_Classes]) -> list[str]:
    """Everything that was passed over, and class folders that hold folders: perhaps those were meant."""
    nested = [one for found in looked for one in found.nested]
    inner = f"{len(nested)} class folders hold folders, whose images all count as theirs: {few(nested, 3)}"
    return [*(note for found in looked for note in found.notes), *([inner] if nested else [])]


def _with_nearest(name: str, names: Sequence[str]) -> str:
    near = [other for other in names if as_prompted(other) == as_prompted(name)]
    return f"{name} (there it is {near[0]})" if near else name


def _in_two_places(looked: Sequence[_Classes]) -> list[str]:
    """Files that are, by links, in two parts or two classes."""
    if groups := same_file({path: identity for found in looked for path, identity in found.files().items()}):
        shown_ = [" is ".join(group[:3]) for group in groups]
        return [f"{len(groups)} image files stand in two parts or two classes, by links: {few(shown_, 5)}"]
    return []


def _raise(root: Path, names: Sequence[str], faults: list[str]) -> None:
    faults = [*name_faults(names), *faults]
    if len(names) < 2:
        faults = [f"{len(names)} class folders; at least two are needed", *faults]
    if faults:
        raise DataError(f"{root} cannot be used: " + "; ".join(faults))


def _read_undivided(root: Path, shares: Shares, seed: int) -> tuple[Split, tuple[str, ...]]:
    """Class folders alone: the split file is read where there is one, else written."""
    found = _look(root)
    needed = 3 if shares[1] else 2
    faults = [*found.faults, *_in_two_places([found])]
    faults += [
        f"the class folder {root / found.folders[name]} has {len(images)} images, too few for {needed} parts"
        for name, images in found.images.items()
        if 0 < len(images) < needed
    ]
    names = tuple(found.folders)
    _raise(root, names, faults)
    images = {name: list(paths) for name, paths in found.images.items()}
    split = divided(root, found.folders, images, shares, seed)
    return Split(split.train, split.val, split.test, split.marks, tuple(_notes([found]))), names
