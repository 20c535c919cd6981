"""The pictures of the benchmark, rendered once and kept in the user's cache.

One array per card and split. The file name carries a hash of the renderer's version and of the card, so a changed
card never meets old pictures; a file appears under its name only when it is complete, and two processes never render
the same one. A file ends in a digest of its name and content, which is checked whenever it is read: what is damaged or
stands under another name is rendered again. Where nothing can be kept, the pictures are rendered for the process alone.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from clipbench import resources
from clipbench.atomic import REASONS
from clipbench.errors import ClipbenchWarning, ConfigError
from clipbench.mini.cards import MiniCard, read_card
from clipbench.mini.render import RENDERER_VERSION, key, render
from clipbench.mini.shapes import SIZE
from clipbench.regular_files import open_regular

Pictures = npt.NDArray[np.uint8]

DIGEST = 32  # bytes at the end of a file: SHA-256 of its name and of what comes before
PATIENCE = 60.0  # seconds to wait for a process that renders the same pictures; it takes one or two


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
    """The pictures of one split of one card, read-only.

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
    found = _read(path, card, split)
    if found is not None:
        return found
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(path) + ".lock", timeout=PATIENCE):
            found = _read(path, card, split, say=True)
            if found is None:
                found = _rendered(card.key, split)
                _write(path, found)
    except (OSError, NotImplementedError, Timeout) as error:  # NotImplementedError: a file system without locks
        code = error.errno if isinstance(error, OSError) else None
        reason = REASONS.get(code or 0) or getattr(error, "strerror", None) or str(error)
        _say_once(path.parent, reason)
    return _rendered(card.key, split) if found is None else found


@functools.cache
def _say_once(folder: Path, reason: str) -> None:
    warnings.warn(
        f"the pictures of mini are rendered for this process alone, since they cannot be kept in {folder} ({reason}); "
        "CLIPBENCH_CACHE names another folder",
        ClipbenchWarning,
        stacklevel=3,
    )


@functools.lru_cache(maxsize=4)
def _rendered(key: str, split: str) -> Pictures:
    """As `render_split`; the next cell finds what could not be kept on disk."""
    pictures = render_split(read_card(key), split)
    pictures.flags.writeable = False
    return pictures


def _read(path: Path, card: MiniCard, split: str, say: bool = False) -> Pictures | None:
    """The pictures, or nothing where there are none, or none that can be trusted (then they are rendered again)."""
    try:
        with open_regular(path) as file:
            data = file.read()
    except OSError:
        return None
    shape = (len(card.classes) * card.per_class[split], SIZE, SIZE, 3)
    try:
        content = io.BytesIO(data)
        array: Pictures = np.load(content, allow_pickle=False)
        rest = data[content.tell() :]
    except (OSError, ValueError, EOFError):
        array, rest = np.empty(0, np.uint8), data
    if rest == _digest(path, data[: len(data) - DIGEST]) and array.shape == shape and array.dtype == np.uint8:
        array.flags.writeable = False
        return array
    if say and rest:  # a file without a digest is that of an earlier version
        warnings.warn(f"{path} is damaged: its pictures are rendered again", ClipbenchWarning, stacklevel=3)
    return None


def _digest(path: Path, data: bytes) -> bytes:
    return hashlib.sha256(path.name.encode() + data).digest()


def _write(path: Path, pictures: Pictures) -> None:
    """Writes the file whole or not at all; the caller holds its lock."""
    for left in path.parent.glob(f"{path.stem}.*.part"):  # by a process that was killed
        left.unlink(missing_ok=True)
    content = io.BytesIO()
    np.save(content, pictures)
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content.getvalue() + _digest(path, content.getvalue()))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
