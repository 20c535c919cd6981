"""A user's own images as a dataset: a card made from a folder or a manifest, without a line of YAML."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from clipbench.data.card import Card
from clipbench.data.readers.image_folder import read_folder
from clipbench.data.readers.manifest import read_manifest
from clipbench.data.splits import PARTS, Split, halves
from clipbench.data.templates import GENERIC, check_template

SUITE = "own"


def folder_dataset(
    root: Path | str,
    split: str | Sequence[float] | None = None,
    split_seed: int = 1,
    template: str = GENERIC,
    key: str | None = None,
) -> tuple[Card, Split]:
    """Card and split of a folder of images by class.

    Args:
        root: holds `train/ val/ test/`, or class folders when `split` is given.
        split: shares of train, val and test, such as `0.5,0.2,0.3`; written to a split file once.
        split_seed: of that split.
        template: sentence with `{}` for the class name.
        key: name in tables; the folder's name by default.

    Raises:
        DataError: when the folder is not as described (`clipbench.data.readers.image_folder.read_folder`).
        ConfigError: when template or shares make no sense.
    """
    check_template(template, "template")
    found, names = read_folder(root, split, split_seed)
    root = Path(root).expanduser()
    options: dict[str, object] = {"split": split, "split_seed": split_seed} if split is not None else {}
    about = f"Images of the folder {root.name}" + (
        f", split {split} with seed {split_seed}." if split is not None else "."
    )
    return _card("image_folder", root, names, found, template, key or root.resolve().name, about, None, options), found


def manifest_dataset(path: Path | str, template: str = GENERIC, key: str | None = None) -> tuple[Card, Split]:
    """Card and split of a CSV manifest; its paths are relative to the manifest's folder.

    Args:
        path: the CSV file with columns `path,label,classname,split[,draws]`.
        template: sentence with `{}` for the class name.
        key: name in tables; by default the name of the file, or of its folder when it is called `manifest.csv`.

    Raises:
        DataError: when the manifest is not right or images are missing.
        ConfigError: when the template makes no sense.
    """
    path = Path(os.path.expanduser(path))  # an unknown home stays as it is, and is no file
    check_template(template, "template")
    found, names = read_manifest(path, path.parent)
    name = path.resolve().parent.name if path.stem == "manifest" else path.stem
    about = f"Images of the manifest {path.name}."
    return _card("manifest", path.parent, names, found, template, key or name, about, path.name, {}), found


def _card(
    reader: str,
    folder: Path,
    names: tuple[str, ...],
    split: Split,
    template: str,
    name: str,
    about: str,
    split_file: str | None,
    options: dict[str, object],
) -> Card:
    base, novel = halves(len(names))
    key = re.sub(r"[^a-z0-9_-]+", "_", name.lower()).strip("_-") or "images"
    return Card(
        id=f"{SUITE}/{key}",
        key=key,
        suite=SUITE,
        title=name,
        published_name=name,
        reader=reader,
        description=about,
        licence="the user's own",
        citation="none",
        sources=(),
        mirrors=(),
        folder=str(folder.resolve()),  # absolute: joined to any data root it stays what it is
        image_root="",
        split_file=split_file,
        split_sha256=(),
        extra_files=(),
        classnames=names,
        counts={
            "classes": len(names),
            "base": len(base),
            "novel": len(novel),
            **{part: len(split.part(part)) for part in PARTS},
        },
        augmentation={},
        template=template,
        mini=None,
        layout="",
        options=options,
    )
