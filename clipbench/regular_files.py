"""Files that others wrote, opened without waiting: a pipe, socket, device or folder in their place is named as such."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}  # fmt: skip


class Fault(ValueError):
    """What is wrong with a file, in a few words that follow its name."""


class UnfitFile(OSError):
    """No regular file; `strerror` says what."""


def kind_of(path: Path) -> str:
    """What stands at a path, links followed: `a folder`, `a pipe` ...; "" for a file.

    Raises:
        OSError: there is nothing.
    """
    mode = stat.S_IFMT(path.stat().st_mode)
    return "" if mode == stat.S_IFREG else KINDS.get(mode, "no file")


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a regular file for reading; never waits for a writer, as opening a pipe would.

    Raises:
        UnfitFile: it is a folder, pipe, socket or device.
        OSError: it is not there or may not be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        if error.errno == errno.ENXIO:  # what a socket answers
            raise UnfitFile(error.errno, "a socket, not a file", os.fspath(path)) from error
        raise
    kind = stat.S_IFMT(os.fstat(handle).st_mode)
    if kind != stat.S_IFREG:
        os.close(handle)
        raise UnfitFile(errno.EINVAL, f"{KINDS.get(kind, 'something else')}, not a file", os.fspath(path))
    return os.fdopen(handle, "rb")


def read_bytes(path: Path, largest: int) -> bytes:
    """The content of a file.

    Raises:
        Fault: it is no file, or larger than that many bytes.
        OSError: it is not there or cannot be read.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > largest:
                raise Fault(f"has {size / 1e6:,.0f} MB; at most {largest / 1e6:.0f} MB are read")
            return file.read()
    except UnfitFile as error:
        raise Fault(f"is {error.strerror}") from error


def reason(path: str | os.PathLike[str], error: OSError) -> str:
    """Why a file cannot be read, in a few words, without its path."""
    if isinstance(error, FileNotFoundError):
        return "the link leads nowhere" if Path(path).is_symlink() else "the file does not exist"
    if isinstance(error, PermissionError):
        return "you may not read it"
    return error.strerror or str(error)
