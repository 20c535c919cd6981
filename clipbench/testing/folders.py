"""Small image folders and manifests for tests: coloured shapes, and the images of a mini dataset as files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from clipbench.recipes.suites import Suite


def suite_of_folder(folder: Path, backbone: str, classes: int = 6, per_class: int = 6) -> Suite:
    """A suite with one dataset `shapes`: a folder of plain coloured images by class, 32 x 32."""
    names = ["red", "green", "blue", "white", "black", "pink", "brown", "gray"][:classes]
    generator = np.random.default_rng(0)
    for part in ("train", "val", "test"):
        for name in names:
            place = folder / part / name
            place.mkdir(parents=True, exist_ok=True)
            for number in range(per_class):
                pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")
    return Suite("shapes", backbone, {"shapes": {"class_path": "ImageFolder", "init_args": {"root": str(folder)}}})


def suite_of_mini(folder: Path, dataset: str, other_test: bool = False) -> Suite:
    """A mini dataset as files with a manifest; `other_test` swaps what training must not see.

    With `other_test` the test labels are shifted, test images inverted, and all images of novel classes inverted.
    """
    from clipbench.data.cards import load_card
    from clipbench.mini.images import load_images

    card = load_card(f"mini/{dataset}")
    base = (len(card.classnames) + 1) // 2
    rows: list[tuple[str, int, str, str]] = []
    for part in ("train", "val", "test"):
        images = load_images(card.id, part)
        per_class = len(images) // len(card.classnames)
        for label in range(len(card.classnames)):
            for number in range(6):
                pixels = np.array(images[label * per_class + number])
                hidden = other_test and (part == "test" or label >= base)
                path = folder / part / f"{label:03d}_{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(255 - pixels if hidden else pixels).save(path)
                given = _shifted(label, base, len(card.classnames)) if other_test and part == "test" else label
                rows.append((str(path.relative_to(folder)), given, card.classnames[given], part))
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "classname", "split"])
        writer.writerows(rows)
    section = {"class_path": "Manifest", "init_args": {"path": str(manifest)}}
    return Suite("files", "mini", {"images": section})


def _shifted(label: int, base: int, classes: int) -> int:
    """The next label of the same half."""
    return (label + 1) % base if label < base else base + (label + 1 - base) % (classes - base)
