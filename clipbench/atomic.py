"""Files that are there whole or not at all: a temporary name in the same folder, flushed, moved over the target."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import platform
import re
import secrets
import time
from collections.abc import Iterator
from contextvars import ContextVar
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
LEFT_OVER = re.compile(r"\..*\.([0-9a-f]{6})-(\d+)-[0-9a-f]{6}\.tmp", re.DOTALL)
PROBE = ".probe"
LONG_AGO = 24 * 3600.0  # seconds: no file is written for so long
_option: ContextVar[str] = ContextVar("_option", default="")


@contextlib.contextmanager
def named_by(option: str) -> Iterator[None]:
    """Within this context, what cannot be written is said to be named by an option of the command line.

    Args:
        option: as `--results`.
    """
    before = _option.set(option)
    try:
        yield
    finally:
        _option.reset(before)


def cannot_write(path: Path, error: OSError) -> RecordError:
    """The one sentence for a file that cannot be written: which, where, why, what to do."""
    reason = REASONS.get(error.errno or 0, error.strerror or str(error))
    what = "anything" if path.name == PROBE else f"'{path.name}'"
    return RecordError(f"cannot write {what} in {path.parent}: {reason}; mend that or {_another()}")


def _another() -> str:
    return "name another place" + (f" with {_option.get()}" if _option.get() else "")


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
            raise RecordError(f"cannot write '{path.name}' in {path.parent}: {kind} stands there; {_another()}")
    temporary = path.with_name(f".{path.name}.{_machine()}-{os.getpid()}-{secrets.token_hex(3)}.tmp")
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


def check_writable(folder: Path) -> None:
    """Finds out before any work starts whether files can be written into a folder, which is made.

    Raises:
        RecordError: the folder is read-only or full.
    """
    write_bytes(folder / PROBE, b"clipbench" * 512).unlink(missing_ok=True)


def remove_left_over(folder: Path) -> None:
    """Removes what was being written below a folder by processes that are no more.

    A temporary name says machine and process. One of this machine is removed when its process has ended, one of
    another when it is a day old; what a process still writes stays.
    """
    with contextlib.suppress(OSError):
        for path in folder.rglob(".*.tmp"):
            found = LEFT_OVER.fullmatch(path.name)
            if found and (_has_ended(found[1], int(found[2])) or time.time() - path.stat().st_mtime > LONG_AGO):
                path.unlink(missing_ok=True)


def _has_ended(machine: str, process: int) -> bool:
    """Whether a process is known to be over."""
    if machine != _machine() or os.name != "posix":
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # another user's
        return False
    return False


@functools.cache
def _machine() -> str:
    """What tells the processes that can see each other from all others: machine, its start, and container."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:6]


def _flush(path: Path) -> None:
    """Waits until the file (or the entry of the folder) is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
