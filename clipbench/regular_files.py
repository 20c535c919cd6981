"""Files that others wrote, opened without waiting: a pipe, socket, device or folder in their place is named as such."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from clipbench.json_files import KINDS


class UnfitFile(OSError):
    """No regular file; `strerror` says what."""


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


def reason(path: str | os.PathLike[str], error: OSError) -> str:
    """Why a file cannot be read, in a few words, without its path."""
    if isinstance(error, FileNotFoundError):
        return "the link leads nowhere" if Path(path).is_symlink() else "the file does not exist"
    if isinstance(error, PermissionError):
        return "you may not read it"
    return error.strerror or str(error)
