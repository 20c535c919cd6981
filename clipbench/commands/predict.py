"""`clipbench predict`: what was learned, on one's own images and class names."""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipbench.data import walk
from clipbench.data.classnames import name_faults
from clipbench.data.paths import IMAGE_SUFFIXES
from clipbench.errors import ConfigError, DataError
from clipbench.printable import printable
from clipbench.recipes.settings import shortened


def add_parser(commands: Any) -> None:
    """The words of the command."""
    parser = commands.add_parser("predict", help="use what was learned on your own images")
    parser.add_argument("images", nargs="+", help="image files and folders")
    parser.add_argument("--weights", type=Path, required=True, help="file of what was learned")
    parser.add_argument(
        "--classes", default=None,
        help="class names, separated by commas, one with a comma in quotes (default: those that were trained on)",
    )  # fmt: skip
    parser.add_argument("--backbone", default=None, help="where the backbone lies, if elsewhere than at the fit")
    parser.add_argument("--config", default=None, help="the recipe of a method of your own: says where its class is")
    parser.add_argument("--top", type=int, default=3)
    parser.add_argument("--format", default="text", choices=["text", "json"])
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the most probable classes of every image.

    Raises:
        ClipbenchError: a wrong call, missing or damaged images, or weights that do not fit.
    """
    names = None if options.classes is None else listed_names(options.classes)
    if options.config is not None:
        from clipbench.methods import method_class
        from clipbench.recipes.recipe import load_recipe

        method_class(load_recipe(options.config).sections["model"]["class_path"])
    rows = predict(options.images, options.weights, names, options.top, options.backbone)
    if options.format == "json":
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        shares = "  ".join(f"{name} {100 * share:.1f} %" for name, share in row["classes"])
        print(printable(f"{row['image']}  {shares}"))  # names of files and classes, as their makers chose them
    return 0


def listed_names(given: str) -> list[str]:
    """Class names as in one line of CSV.

    Raises:
        ConfigError: a quote without its end, or more than one line.
    """
    try:
        rows = list(csv.reader([given], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise ConfigError(
            "--classes is no line of names separated by commas, one with a comma in quotes that end: "
            + shortened(repr(given), 60)
        ) from error
    return [name.strip() for row in rows for name in row if name.strip()]


def find_images(places: Sequence[str]) -> list[Path]:
    """Files as given, folders searched through as data modules do, sorted; says what is passed over.

    Raises:
        DataError: a place that does not exist or cannot be read, or no image anywhere.
    """
    found: list[Path] = []
    faults: list[str] = []
    for name in places:
        place = Path(name)
        if os.path.isdir(name):
            listed = walk.find_images(place)
            found += [place / path for path in listed.images]
            faults += listed.faults
            for note in walk.passed_over_notes(listed):
                print(f"clipbench: {place}: {note}", file=sys.stderr)
        elif os.path.exists(name):
            found.append(place)
        else:
            faults.append(f"there is no image or folder '{name}'")
    if faults:
        raise DataError("\n".join(faults))
    if not found:
        raise DataError(f"no image below {', '.join(places)} (endings: {' '.join(sorted(IMAGE_SUFFIXES))})")
    return found


def predict(
    places: Sequence[str],
    weights: Path,
    classnames: Sequence[str] | None = None,
    top: int = 3,
    backbone: str | None = None,
) -> list[dict[str, Any]]:
    """The most probable classes of every image.

    Args:
        places: image files and folders.
        weights: file of what was learned.
        classnames: any class names; None: those that were trained on.
        top: how many classes to name.
        backbone: under which name the backbone is at hand, if another than at the fit.

    Returns:
        Per image: `image`, and `classes` as pairs of name and probability, best first.

    Raises:
        DataError: damaged or missing images, all of them in one message.
        MethodError: weights of another backbone, or none at all.
    """
    if top < 1:
        raise ConfigError(f"--top {top}: at least one class is to be named")
    if classnames is not None and len(classnames) < 2:
        raise ConfigError("--classes needs at least two names, separated by commas")
    if faults := name_faults(classnames or ()):
        raise ConfigError(f"--classes: {'; '.join(faults)}")
    files = find_images(places)
    from clipbench.methods.header import read_header

    classnames = classnames or read_header(weights).classnames  # before torch is there
    from clipbench.data.decoding import check_images
    from clipbench.methods.base import Method

    if bad := check_images(files):
        raise DataError("\n".join(bad))
    probabilities = Method.load(weights, backbone).predict(files, classes=classnames)
    rows = []
    for file, row in zip(files, probabilities, strict=True):
        best = row.topk(min(top, len(classnames)))
        pairs = [(classnames[i], round(p, 6)) for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]
        rows.append({"image": str(file), "classes": pairs})
    return rows
