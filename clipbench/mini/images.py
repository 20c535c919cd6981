"""The pictures of the benchmark, rendered once and kept in the user's cache.

One array per card and split. The file name carries a hash of the renderer's version and of the card, so a changed
card never meets old pictures; a file appears under its name only when it is complete, and two processes never render
the same one.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from clipbench import resources
from clipbench.errors import ConfigError
from clipbench.mini.cards import MiniCard, read_card
from clipbench.mini.render import RENDERER_VERSION, key, render
from clipbench.mini.shapes import SIZE

Pictures = npt.NDArray[np.uint8]


def render_split(card: MiniCard, split: str) -> Pictures:
    """Render one split, without the cache.

    Args:
        card: a card of the suite.
        split: ``train``, ``val`` or ``test``.

    Returns:
        (N, 48, 48, 3) uint8, class-major: image i of class c is at c * per_class + i.
    """
    count = card.per_class[split]
    out = np.empty((len(card.classes) * count, SIZE, SIZE, 3), np.uint8)
    for label, values in enumerate(card.classes):
        for image in range(count):
            picture = key(card.seed, card.family.name, split, label, image)
            out[label * count + image] = render(card.family.name, values, card.style, picture)
    return out


def fingerprint(card: MiniCard) -> str:
    """Sixteen hex digits that change whenever a pixel of the card may."""
    return hashlib.sha256(f"{RENDERER_VERSION} {card.digest}".encode()).hexdigest()[:16]


def cache_file(card: MiniCard, split: str) -> Path:
    """Where the array of a split lies or will lie."""
    return resources.cache_dir() / "mini" / f"{card.key}-{split}-{fingerprint(card)}.npy"


def load_images(card_id: str, split: str) -> Pictures:
    """The pictures of one split of one card, memory-mapped and read-only.

    Args:
        card_id: ``imagenet`` or ``mini/imagenet``.
        split: ``train``, ``val`` or ``test``.

    Returns:
        (N, 48, 48, 3) uint8 RGB, class-major, N = classes times images per class.

    Raises:
        UnknownName: no such card.
        ConfigError: no such split.
    """
    card = read_card(card_id)
    if split not in card.per_class:
        raise ConfigError(f"split '{split}' of {card_id}: there are {', '.join(card.per_class)}")
    path = cache_file(card, split)
    shape = (len(card.classes) * card.per_class[split], SIZE, SIZE, 3)
    found = _open(path, shape)
    if found is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(path) + ".lock"):
            found = _open(path, shape)
            if found is None:
                _write(path, render_split(card, split))
                found = _open(path, shape)
    if found is None:
        raise OSError(f"{path} was written but cannot be read back")
    return found


def _open(path: Path, shape: tuple[int, ...]) -> Pictures | None:
    """The array, or nothing if it is absent or damaged (then it is rendered again)."""
    try:
        array: Pictures = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return array if array.shape == shape and array.dtype == np.uint8 else None


def _write(path: Path, pictures: Pictures) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            np.save(file, pictures)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
