"""Conformance of a dataset card: trees of fake files in the exact real layout, and one named check per property.

A plug-in tests its card with `check_card(load_card("my.yaml"), tmp_path)`, or with the functions of `CARD_CHECKS`.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path

from clipbench.data.card import Card, CardFile
from clipbench.data.cards import read_yaml, schema_errors
from clipbench.data.draw import VAL_SHOTS, draw
from clipbench.data.files import content, find
from clipbench.data.readers import READERS, read_split
from clipbench.data.readers.fgvc import LISTS, VARIANTS, content_digest
from clipbench.data.readers.zhou import dump
from clipbench.data.splits import PARTS, Item, Split, halves, per_class
from clipbench.data.status import inspect
from clipbench.data.task import Task
from clipbench.data.templates import check_template, fill, list_template_sets, templates_for_task

Images = tuple[int, int, int]


@functools.lru_cache(maxsize=512)
def fake_image(label: int, index: int, suffix: str) -> bytes:
    """A small real image file: the class gives colour and stripes, the index shifts them.

    Args:
        label: of the class; 32 different ones, then they repeat.
        index: of the image; 8 different ones, then they repeat.
        suffix: `.jpg`, `.png` ...; the file is of that format.
    """
    import numpy as np
    from PIL import Image

    label, index = label % 32, index % 8
    rows, columns = np.mgrid[0:32, 0:40]
    colour = np.array([40 + 53 * label % 190, 40 + 101 * label % 190, 40 + 29 * label % 190])
    stripes = ((rows * (label % 5) + columns * (label % 3 + 1) + 2 * index) // 6 % 2)[..., None]
    pixels = np.clip(colour + 40 * stripes + index, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    kind = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP"}.get(suffix.lower(), "PNG")
    Image.fromarray(pixels).save(file, format=kind)
    return file.getvalue()


def fake_split(card: Card, images: Images = (3, 1, 2)) -> Split:
    """A split with so many train, val and test images of each class, with paths as the real dataset has them.

    Classes come in label order, as in most of the real split files; a part that the card does not have stays empty.
    """
    numbers = {part: number if card.counts[part] else 0 for part, number in zip(PARTS, images, strict=True)}
    folders = {
        "imagenet": {"train": "train/", "test": "val/"},
        "image_folder": {part: f"{part}/" for part in PARTS},
    }.get(card.reader, {})
    pattern = card.path_pattern if card.reader != "image_folder" else "{folder}/{number:04d}.png"
    parts: dict[str, list[Item]] = {part: [] for part in PARTS}
    index = 0
    for part in PARTS:
        for label, name in enumerate(card.classnames):
            before = sum(numbers[earlier] for earlier in PARTS[: PARTS.index(part)])
            for number in range(before + 1, before + numbers[part] + 1):
                index += 1
                folder = card.class_folders[label] if card.class_folders else name
                path = pattern.format(
                    folder=folder,
                    compact=folder.replace("_", ""),
                    number=number,
                    index=index,
                    label=label,
                    set="test" if part == "test" else "train",
                )
                parts[part].append(Item(folders.get(part, "") + path, label, name))
        if folders or card.reader == "class_folders":  # these readers list folders: names are sorted inside a class
            parts[part].sort(key=lambda item: (item.label, item.path))
    return Split.of(parts)


def fake_tree(card: Card, root: Path, images: Images = (3, 1, 2), splits_dir: Path | None = None) -> Card:
    """Writes a dataset of small real image files in the exact layout that the card describes.

    Args:
        card: the dataset.
        root: the data root to write below.
        images: train, val and test images of each class, for a small tree with a split file of its own.
        splits_dir: a folder with the published split files; the tree then has every image of the dataset.

    Returns:
        The card that fits the tree: the given one with the counts and hashes of a small tree; the given one itself when
        `splits_dir` is used or nothing has to be on disk.
    """
    if card.rendered:
        return card
    split = fake_split(card, images) if splits_dir is None else read_split(card, root, splits_dir)
    _write_images(card, split, root)
    if splits_dir is None:
        return _write_texts(card, split, root)
    for file in card.files:
        path = find(card, file, root, splits_dir)
        if path is not None:
            (card.folder_in(root) / file.name).write_bytes(content(path))
    return card


def _write_images(card: Card, split: Split, root: Path) -> None:
    made: set[str] = set()
    for part in PARTS:
        for index, item in enumerate(split.part(part)):
            path = str(card.image_dir(root) / item.path)
            folder, suffix = os.path.dirname(path), os.path.splitext(path)[1]
            if folder not in made:
                os.makedirs(folder, exist_ok=True)
                made.add(folder)
            with open(path, "wb") as file:
                file.write(fake_image(item.label, index, suffix))
    if card.reader == "class_folders":  # the archives of ImageNet-A and -R hold one
        (card.image_dir(root) / "README.txt").write_text("not a class", encoding="utf-8")


def _write_texts(card: Card, split: Split, root: Path) -> Card:
    """Split file or lists of a small tree, and the card that goes with them."""
    texts: dict[str, bytes] = {}
    if card.reader == "zhou_json" and card.split_file:
        texts[card.split_file] = dump(split)
    elif card.reader == "fgvc":
        texts[VARIANTS] = "".join(f"{name}\n" for name in card.classnames).encode()
        for part, name in LISTS.items():
            lines = [f"{Path(item.path).stem} {item.classname}\n" for item in split.part(part)]
            texts[name] = "".join(lines).encode()
    elif card.reader == "manifest" and card.split_file:
        rows = [f'{item.path},{item.label},"{item.classname}",{part}\n' for part in PARTS for item in split.part(part)]
        texts[card.split_file] = "".join(["path,label,classname,split\n", *rows]).encode()
    elif card.reader in ("imagenet", "class_folders") and not card.class_folders[0].isdecimal():
        lines = [f"{folder} {name}\n" for folder, name in zip(card.class_folders, card.classnames, strict=True)]
        texts["classnames.txt"] = "".join(lines).encode()
    for name, data in texts.items():
        (card.folder_in(root) / name).write_bytes(data)
    hashes = {name: (hashlib.sha256(data).hexdigest(),) for name, data in texts.items()}
    base = range(card.counts["base"])
    counts = {name: card.counts[name] for name in ("classes", "base", "novel")}
    for part in PARTS:
        items = split.part(part)
        counts[part] = len(items)
        counts[f"{part}_base"] = sum(item.label in base for item in items)
        counts[f"{part}_novel"] = len(items) - counts[f"{part}_base"]
    return dataclasses.replace(
        card,
        counts=counts,
        split_sha256=hashes.get(card.split_file or "", ()),
        extra_files=tuple(CardFile(name, digest) for name, digest in hashes.items() if name != card.split_file),
        content_sha256={
            part: content_digest(split.part(part), ordered=part != "test") for part in PARTS if card.content_sha256
        },
    )


def check_schema(card: Card, folder: Path) -> None:
    """The card's file fits the schema and says where the data come from."""
    if card.path is None:
        return
    assert schema_errors(read_yaml(card.path)) == []
    assert card.reader in READERS, f"unknown reader {card.reader}"
    if not card.rendered:
        assert card.sources, "a card of real data names its source"
        assert card.folder, "a card of real data names its folder"
        assert card.layout.strip(), "a card of real data draws its layout"
        assert card.folder.split("/")[0] in card.layout, "the drawn layout starts at the dataset's folder"


def check_halves(card: Card, folder: Path) -> None:
    """Base is the first ceil(C/2) labels, novel the rest."""
    base, novel = halves(len(card.classnames))
    assert (len(base), len(novel)) == (card.counts["base"], card.counts["novel"])
    assert [*base, *novel] == list(range(card.counts["classes"]))
    assert len(base) - len(novel) in (0, 1)


def check_classnames(card: Card, folder: Path) -> None:
    """One name per label, none empty or with stray blanks."""
    assert len(card.classnames) == card.counts["classes"]
    assert all(name == name.strip() and name for name in card.classnames)


def check_templates(card: Card, folder: Path) -> None:
    """Every template set has sentences for the dataset, and class names fit into them."""
    for name in list_template_sets():
        templates = templates_for_task(name, Task(card.key, card.template, card.classnames, ()))
        assert templates, f"template set {name} has nothing for {card.key}"
        for template in templates:
            check_template(template, name)
            text = fill(template, card.classnames[0])
            assert "{" not in text
            assert "_" not in text


def check_reader(card: Card, folder: Path) -> None:
    """The reader gives back, from a tree in the real layout, exactly what was written, and nothing is found wrong."""
    images = (2, 1, 1)
    fitting = fake_tree(card, folder, images)
    found = inspect(fitting, folder, sizes=True)
    assert found.problems == [], found.message()
    split = read_split(fitting, folder)
    if not card.rendered:
        expected = fake_split(card, images)
        for part in PARTS:
            assert split.part(part) == expected.part(part), f"{part} differs from what was written"
            for item in split.part(part)[:5]:
                assert (fitting.image_dir(folder) / item.path).is_file()


def check_counts(card: Card, folder: Path) -> None:
    """Counts of the split are the card's, by part and half; a tree with an image less is noticed."""
    fitting = fake_tree(card, folder, images=(1, 1, 1))
    split = read_split(fitting, folder)
    base, novel = halves(len(card.classnames))
    for part in PARTS:
        items = split.part(part)
        assert len(items) == fitting.counts[part]
        for half, labels in (("base", base), ("novel", novel)):
            expected = fitting.counts.get(f"{part}_{half}")
            assert expected is None or sum(item.label in labels for item in items) == expected
        assert {item.label for item in items} in (set(), set(range(len(card.classnames))))
        assert all(item.classname == card.classnames[item.label] for item in items)
    if not card.rendered:
        gone = fitting.image_dir(folder) / split.test[-1].path
        gone.unlink()
        message = inspect(fitting, folder).message()
        assert "1 problem" in message
        assert gone.name in message or "test:" in message or gone.parent.name in message, message


def check_draw(card: Card, folder: Path) -> None:
    """The draw takes min(shots, what there is) of each class, no image twice, and the same for the same seed."""
    split = read_split(card, folder) if card.rendered else fake_split(card, images=(6, 5, 1))
    if not split.train:
        return
    for shots in (1, 4, 16):
        first = draw(split, shots, seed=1)
        assert first == draw(split, shots, seed=1)
        for drawn, items, limit in (
            (first.train, split.train, shots),
            (first.val, split.val, min(shots, VAL_SHOTS)),
        ):
            sizes = {label: len(positions) for label, positions in per_class(items).items()}
            assert {label: len(positions) for label, positions in per_class(drawn).items()} == {
                label: min(limit, size) for label, size in sizes.items()
            }
            assert list(per_class(drawn)) == list(per_class(items)), "classes come in order of first appearance"
            assert len(set(drawn)) == len(drawn)
        assert tuple(split.train[position] for position in first.train_indices) == first.train
        assert tuple(split.val[position] for position in first.val_indices) == first.val
    assert draw(split, 1, seed=1).train != draw(split, 1, seed=2).train


CARD_CHECKS: tuple[Callable[[Card, Path], None], ...] = (
    check_schema,
    check_halves,
    check_classnames,
    check_templates,
    check_reader,
    check_counts,
    check_draw,
)


def check_card(card: Card, folder: Path) -> None:
    """All checks of a card, each in a folder of its own below `folder`.

    Raises:
        AssertionError: at the first property that does not hold.
    """
    for check in CARD_CHECKS:
        below = folder / check.__name__
        below.mkdir(parents=True)
        check(card, below)
