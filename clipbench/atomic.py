"""Files that are there whole or not at all: a temporary name in the same folder, flushed, moved over the target."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from clipbench.errors import RecordError
from clipbench.regular_files import kind_of

REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "the folder is read-only for you",
    errno.EPERM: "the folder is read-only for you",
    errno.ENOTDIR: "a file stands where a folder is needed",
    errno.EEXIST: "a file stands where a folder is needed",
}


def cannot_write(path: Path, error: OSError) -> RecordError:
    """The one sentence for a file that cannot be written: which, where, why, what to do."""
    reason = REASONS.get(error.errno or 0, error.strerror or str(error))
    return RecordError(
        f"cannot write '{path.name}' in {path.parent}: {reason}; mend that or name another results folder"
    )


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`: moved over it when the block ends well, removed when it does not.

    The temporary name starts with a dot and ends in `.tmp`, so that no reader takes it for a finished file. A kill at
    any moment leaves the former content of `path`, or none.

    Args:
        path: where the file shall be; missing folders are made.

    Raises:
        RecordError: the folder is read-only or full, or a folder, pipe or device stands there.

    Example:
        >>> with replacing(Path("scatter.png")) as temporary:  # doctest: +SKIP
        ...     figure.savefig(temporary, format="png")
    """
    with contextlib.suppress(OSError):  # nothing is there yet, or it cannot be seen: the rest says why
        if kind := kind_of(path):
            raise RecordError(f"cannot write '{path.name}' in {path.parent}: {kind} stands there; name another file")
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
        with contextlib.suppress(OSError):  # some network file systems cannot flush a folder
            _flush(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> Path:
    """Writes a text file (UTF-8) whole or not at all.

    Raises:
        RecordError: the folder is read-only or full.
    """
    return write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> Path:
    """Writes a binary file whole or not at all.

    Raises:
        RecordError: the folder is read-only or full.
    """
    with replacing(path) as temporary, open(temporary, "xb") as file:
        file.write(data)
    return path


def remove_temporary(folder: Path, process: int) -> None:
    """Removes what a process that was killed was still writing below a folder."""
    with contextlib.suppress(OSError):
        for path in folder.rglob(f".*.{process}-????????.tmp"):
            path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Waits until the file (or the entry of the folder) is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
