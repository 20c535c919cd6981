"""Test sets that are one folder per class: ImageNetV2 (`0` .. `999`), -Sketch, -A and -R (synsets; A and R relabelled 0..199)."""

from __future__ import annotations

import os
from pathlib import Path

from clipbench.data.cards import Card
from clipbench.data.files import content, find
from clipbench.data.splits import Item, Split
from clipbench.errors import DataError

CLASSNAMES = "classnames.txt"


def read(card: Card, root: Path, splits_dir: Path | None = None) -> Split:
    """The split: test only; a label is the position of the folder in the card, file names are sorted.

    Raises:
        DataError: when folders are missing or other ones are there, or `classnames.txt` has other names.
    """
    if splits_dir is not None:
        raise DataError(f"'{card.id}' has no split file: it is read from the folders below {card.image_dir(root)}")
    images = card.image_dir(root)
    if not images.is_dir():
        raise missing_folder(card, images)
    check_classnames_file(card, root)
    return Split((), (), list_class_folders(card, images, ""))


def list_class_folders(card: Card, images: Path, prefix: str) -> tuple[Item, ...]:
    """The images of all class folders, classes in label order, file names sorted; hidden files and files between the folders skipped.

    Args:
        card: gives `class_folders` and `classnames`.
        images: the image folder.
        prefix: below it, with a slash at the end; part of the items' paths.

    Raises:
        DataError: when class folders are missing, unknown ones are there, or one is empty; all in one message.
    """
    base = images / prefix
    if not base.is_dir():
        raise missing_folder(card, base)
    with os.scandir(base) as entries:
        there = {entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")}
    wanted = set(card.class_folders)
    items: list[Item] = []
    empty = []
    for label, (folder, name) in enumerate(zip(card.class_folders, card.classnames, strict=True)):
        if folder not in there:
            continue
        files = sorted(file for file in os.listdir(base / folder) if not file.startswith("."))
        if not files:
            empty.append(folder)
        items += [Item(f"{prefix}{folder}/{file}", label, name) for file in files]
    faults = [
        f"{len(found)} {what}: {', '.join(found[:10])}" + (f" and {len(found) - 10} more" if len(found) > 10 else "")
        for what, found in (
            ("class folders are missing", sorted(wanted - there)),
            ("folders are no class of this dataset", sorted(there - wanted)),
            ("class folders hold no image", empty),
        )
        if found
    ]
    if faults:
        raise DataError(f"{base} is not the folder of '{card.id}': " + "; ".join(faults))
    return tuple(items)


def missing_folder(card: Card, folder: Path) -> DataError:
    """The error for an image folder that is not there."""
    return DataError(
        f"'{card.id}' needs the folder {folder}, which does not exist; `clipbench data status` says where it comes from"
    )


def check_classnames_file(card: Card, root: Path) -> None:
    """Compares a `classnames.txt` of the user, when there is one, with the names of the card, by parsed content.

    A line is `<synset> <name>`. The file may list more synsets than the card has (ImageNet-A and -R use a part of it). The
    card's names are used in any case; a file with others (there are copies with WordNet's names) would mean other prompts.

    Raises:
        DataError: when a name differs or a synset of the card is not listed.
    """
    file = next((file for file in card.files if file.name == CLASSNAMES), None)
    path = find(card, file, root) if file else None
    if path is None:
        return
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
    if faults:
        shown = "; ".join(faults[:3]) + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")
        raise DataError(
            f"{path} has other class names than the benchmark: {shown}; replace it, or remove it: the card holds the names"
        )
