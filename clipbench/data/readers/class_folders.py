"""Test sets of one folder per class: ImageNetV2 (`0` .. `999`), -Sketch, -A, -R (synsets; the last two 0..199)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from clipbench.data.card import Card
from clipbench.data.files import content, find
from clipbench.data.paths import few
from clipbench.data.splits import Item, Split
from clipbench.errors import DataError

CLASSNAMES = "classnames.txt"


def read(card: Card, root: Path, splits_dir: Path | None = None) -> Split:
    """The split: test only; a label is the position of the folder in the card, file names are sorted.

    Raises:
        DataError: when folders are missing or other ones are there, or `classnames.txt` has other names.
    """
    return read_parts(card, root, splits_dir, {"test": ""})


def read_parts(card: Card, root: Path, splits_dir: Path | None, prefixes: Mapping[str, str]) -> Split:
    """The split from class folders.

    Args:
        card: gives `class_folders` and `classnames`.
        root: the data root.
        splits_dir: must be None; there is no split file.
        prefixes: part of the split to the folder of its class folders below the image folder, with a slash at the end.

    Raises:
        DataError: everything that is wrong, in one message.
    """
    images = card.image_dir(root)
    if splits_dir is not None:
        below = " and ".join(f"{images / prefix}" for prefix in prefixes.values())
        raise DataError(f"'{card.id}' has no split file: it is read from the class folders of {below}")
    faults = classnames_faults(card, root)
    parts = {}
    for part, prefix in prefixes.items():
        parts[part], found = _class_folders(card, images, prefix)
        faults += found
    if faults:
        raise DataError(f"'{card.id}' cannot be read: " + "; ".join(faults))
    return Split.of(parts)


def _class_folders(card: Card, images: Path, prefix: str) -> tuple[list[Item], list[str]]:
    """The images of all class folders, classes in label order, file names sorted; and what is wrong.

    Hidden files, and files between the folders such as `README.txt`, are no images and are passed over.
    """
    base = images / prefix
    if not base.is_dir():
        return [], [f"the folder {base} does not exist; `clipbench data status` says where it comes from"]
    try:
        with os.scandir(base) as entries:
            there = {entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")}
    except OSError as error:
        return [], [f"the folder {base} cannot be read: {error.strerror}"]
    wanted = set(card.class_folders)
    items: list[Item] = []
    empty, closed = [], []
    for label, (folder, name) in enumerate(zip(card.class_folders, card.classnames, strict=True)):
        if folder not in there:
            continue
        try:
            files = sorted(file for file in os.listdir(base / folder) if not file.startswith("."))
        except OSError as error:
            closed.append(f"{folder} ({error.strerror})")
            continue
        if not files:
            empty.append(folder)
        items += [Item(f"{prefix}{folder}/{file}", label, name) for file in files]
    return items, [
        f"{base}: {len(found)} {what}: {few(found)}"
        for what, found in (
            ("class folders are missing", sorted(wanted - there)),
            ("folders are no class of this dataset", sorted(there - wanted)),
            ("class folders hold no image", empty),
            ("class folders cannot be read", closed),
        )
        if found
    ]


def classnames_faults(card: Card, root: Path) -> list[str]:
    """Where a `classnames.txt` of the user, when there is one, differs from the names of the card, by parsed content.

    A line is `<synset> <name>`. The file may list more synsets than the card has (ImageNet-A and -R use a part of it).
    The card's names are used in any case; a file with others (there are copies with WordNet's names) would mean other
    prompts.
    """
    file = next((file for file in card.files if file.name == CLASSNAMES), None)
    path = find(card, file, root) if file else None
    if path is None:
        return []
    lines = content(path).decode("utf-8", errors="replace").splitlines()
    listed = [(synset, name) for synset, _, name in (line.strip().partition(" ") for line in lines) if synset]
    if card.class_folders[0].isdecimal():  # ImageNetV2: the n-th line names folder n
        faults = [
            f"line {number + 1} names '{name}', expected '{expected}'"
            for number, ((_, name), expected) in enumerate(zip(listed, card.classnames, strict=False))
            if name != expected
        ]
        faults += (
            [f"{len(listed)} lines, expected {len(card.classnames)}"] if len(listed) != len(card.classnames) else []
        )
    else:
        names = dict(listed)
        faults = [
            f"{folder} is '{names[folder]}', expected '{name}'" if folder in names else f"{folder} is not listed"
            for folder, name in zip(card.class_folders, card.classnames, strict=True)
            if names.get(folder) != name
        ]
    if not faults:
        return []
    return [
        f"{path} has other class names than the benchmark ({few(faults, 3)}): "
        "replace it, or remove it: the card holds the names"
    ]
