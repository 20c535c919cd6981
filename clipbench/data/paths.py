"""Which image files of a split are on disk: folders are listed once each, not asked file by file."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".avif", ".ppm", ".pgm", ".pbm")
)


def absent(image_dir: Path, paths: Iterable[str], sizes: bool = False) -> tuple[list[str], list[str]]:
    """The paths that are no file, and those that are empty files; both sorted, each once.

    Args:
        image_dir: the folder that the paths are relative to.
        paths: slash-separated paths.
        sizes: whether to look for empty files as well (one more system call per file).
    """
    folders: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        folder, _, name = path.rpartition("/")
        folders[folder].add(name)
    missing, empty = [], []
    for folder, names in folders.items():
        sizes_there: dict[str, int] = {}
        try:
            with os.scandir(image_dir / folder) as entries:
                for entry in entries:
                    if entry.name in names and entry.is_file():
                        sizes_there[entry.name] = entry.stat().st_size if sizes else -1
        except OSError:  # no such folder, or one that cannot be read: all its files are missing
            sizes_there = {}
        prefix = f"{folder}/" if folder else ""
        missing += [prefix + name for name in names - set(sizes_there)]
        empty += [prefix + name for name, size in sizes_there.items() if size == 0]
    return sorted(missing), sorted(empty)


def few(things: Sequence[object], limit: int = 10) -> str:
    """The first ten, and how many more there are.

    Example:
        >>> few(["a", "b", "c"], limit=2)
        'a, b and 1 more'
    """
    shown = ", ".join(map(str, things[:limit]))
    return f"{shown} and {len(things) - limit:,} more" if len(things) > limit else shown


def list_images(folder: Path) -> tuple[list[str], list[str]]:
    """Image files (by suffix) at any depth below a folder, and the other files; relative, sorted, no hidden ones."""
    images: list[str] = []
    others: list[str] = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            if not name.startswith("."):
                path = (Path(parent) / name).relative_to(folder)
                (images if path.suffix.lower() in IMAGE_SUFFIXES else others).append(path.as_posix())
    return sorted(images), sorted(others)
