"""Decoded pixels: image files, or an array that is already decoded, as uint8 RGB by position.

Nothing is skipped: a file that cannot be decoded is an error that names its path, and a set of files is checked as a
whole, so that all bad ones stand in one message.
"""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from clipbench import resources
from clipbench.atomic import REASONS
from clipbench.data.decoding import DamagedImages, check_images, decode
from clipbench.errors import DataError

MEMORY_BUDGET = 2 * 2**30  # bytes of decoded images kept in memory; what is beyond goes into a memory map
VAL_BUDGET = MEMORY_BUDGET // 5  # of it for the val draw, which has at most four images a class
CHUNK = 2**28  # bytes of one memory-mapped scratch file


class Pixels(Protocol):
    """Decoded images by position."""

    def __len__(self) -> int:
        """How many images there are."""

    def __getitem__(self, position: int, /) -> np.ndarray:
        """The image at a position: uint8 (H, W, 3), read-only."""

    def preload(self) -> None:
        """Decodes what is worth keeping; raises one `DamagedImages` for all bad files."""


def _refuse(bad: Sequence[str], total: int) -> None:
    if bad:
        raise DamagedImages("\n  ".join([f"{len(bad)} of {total} images cannot be used:", *bad]))


class ImageStore:
    """Image files, decoded when first asked for.

    With `keep` (few-shot images, seen every epoch) a decoded image stays: in memory up to `budget`, beyond that in
    memory-mapped scratch files without a name, which vanish with the process. Without it (test images, seen once) every
    access decodes. A worker process uses what its parent kept and keeps more in its own memory only.

    Args:
        paths: image files; a position is an index into this list.
        keep: whether decoded images are kept.
        budget: bytes of memory for kept images.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]], keep: bool = True, budget: int = MEMORY_BUDGET) -> None:
        self.paths = tuple(os.fspath(path) for path in paths)
        self.keep = keep
        self.budget = budget
        self._forget()

    def _forget(self) -> None:
        self._kept: dict[int, np.ndarray] = {}
        self._in_memory = 0
        self._scratch: _Scratch | None = None
        self._owner = os.getpid()

    def __getstate__(self) -> dict[str, object]:
        # Pixels do not travel to a worker that is started afresh: decoding again is cheaper than pickling gigabytes.
        return {"paths": self.paths, "keep": self.keep, "budget": self.budget}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._forget()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> np.ndarray:
        pixels = self._kept.get(position)
        if pixels is None:
            pixels = decode(self.paths[position])
            if self.keep:
                pixels = self._keep(position, pixels)
        return pixels

    def _keep(self, position: int, pixels: np.ndarray) -> np.ndarray:
        if self._in_memory + pixels.nbytes <= self.budget:
            self._in_memory += pixels.nbytes
        elif os.getpid() == self._owner:  # a forked worker must not write where its siblings write
            self._scratch = self._scratch or _Scratch()
            pixels = self._scratch.add(pixels)
        else:
            return pixels
        self._kept[position] = pixels
        return pixels

    def preload(self) -> None:
        """Decodes every image that is to be kept; does nothing for a store that keeps none.

        Raises:
            DamagedImages: names every bad file.
        """
        if not self.keep:
            return
        bad = []
        for position in range(len(self)):
            try:
                self[position]
            except DamagedImages as error:
                bad.append(str(error))
        _refuse(bad, len(self))

    def refuse_damaged(self) -> None:
        """Decodes every file without keeping it, and raises one `DamagedImages` that names all bad ones."""
        _refuse(check_images(self.paths), len(self))


class ArrayImages:
    """Images that are decoded already: rows of one array, for example the memory-mapped images of the embedded suite.

    Args:
        array: uint8 (N, H, W, 3).
        rows: the row of each position.
    """

    def __init__(self, array: np.ndarray, rows: Sequence[int]) -> None:
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3:
            raise DataError(f"decoded images must be uint8 (N, H, W, 3), not {array.dtype} {array.shape}")
        if len(rows) and not 0 <= min(rows) <= max(rows) < len(array):
            raise DataError(f"the array has {len(array)} images, but image {max(rows)} is asked for")
        self.array = np.asarray(array)  # without the slow subclass of a memory map; the memory stays mapped
        self.rows = np.asarray(rows, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> np.ndarray:
        return self.array[self.rows[position]]

    def preload(self) -> None:
        """Nothing to decode."""


class _Scratch:
    """Arrays in memory-mapped files without a name; written through the file, so that a full disk is an error."""

    def __init__(self) -> None:
        self._map: mmap.mmap | None = None
        self._used = 0

    def add(self, pixels: np.ndarray) -> np.ndarray:
        """Writes an array and returns it as a read-only view of the file.

        Raises:
            DataError: the whole of it cannot be written.
        """
        folder = resources.cache_dir()
        try:
            if self._map is None or self._used + pixels.nbytes > len(self._map):
                self._open(folder, max(CHUNK, pixels.nbytes))
            assert self._map is not None
            self._write(pixels.tobytes())
        except OSError as error:
            raise DataError(
                f"{folder} cannot take the decoded images that are too many for memory: "
                f"{REASONS.get(error.errno or 0) or error.strerror}; make room there or name another folder in "
                "CLIPBENCH_CACHE"
            ) from error
        start, self._used = self._used, self._used + pixels.nbytes
        flat = np.frombuffer(self._map, dtype=np.uint8, count=pixels.nbytes, offset=start)
        return flat.reshape(pixels.shape)

    def _write(self, data: bytes) -> None:
        """Writes all of it behind what is used; the system may take a part at a time (a disk that is nearly full)."""
        done = 0
        while done < len(data):
            written = os.pwrite(self._file.fileno(), memoryview(data)[done:], self._used + done)
            if written == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            done += written

    def _open(self, folder: Path, size: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # The map stays valid after the file object of a full chunk is gone; arrays hold the map.
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._file.truncate(size)
        self._map = mmap.mmap(self._file.fileno(), size, access=mmap.ACCESS_READ)
        self._used = 0


_last_kept: tuple[object, ImageStore] | None = None


def kept_images(paths: Sequence[Path]) -> ImageStore:
    """A keeping store that outlives one cell: the next cell on the same unchanged files finds them decoded.

    Only the latest set of files is held, so the memory in use stays within one store's.
    """
    global _last_kept
    stamp = tuple(_stamp(path) for path in paths)
    if _last_kept is None or _last_kept[0] != stamp:
        _last_kept = None  # the old pixels go before the new ones come
        _last_kept = (stamp, ImageStore(paths, budget=MEMORY_BUDGET - VAL_BUDGET))
    return _last_kept[1]


def _stamp(path: Path) -> tuple[object, ...]:
    try:
        found = path.stat()
    except OSError:
        return (str(path),)
    return str(path), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
