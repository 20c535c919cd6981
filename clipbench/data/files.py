"""The text files of a dataset: where they lie (its folder, or one folder for all; plain or gzipped), their hashes."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zlib
from pathlib import Path

from clipbench.data.card import Card, CardFile
from clipbench.errors import DataError
from clipbench.regular_files import Fault, read_bytes

LARGEST = 256_000_000  # bytes of a text file, unpacked; the split of Food101 has 10 MB
GZIP = b"\x1f\x8b"
# What a download gives instead of the file: how it begins, and what to do.
STRAYS = (
    ((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--"), "is a web page, not the file: the link gave a page (a "
     "log-in, a notice before the download); open it in a browser and save the file that it offers"),
    ((b"version https://git-lfs",), "is a pointer of Git LFS, not the file: `git lfs pull` in its repository gets it"),
    ((b"pk\x03\x04", b"7z\xbc\xaf", b"rar!"), "is an archive, not the file: unpack it"),
)  # fmt: skip


def find(card: Card, file: CardFile, root: Path, splits_dir: Path | None = None) -> Path | None:
    """The file, plain or as `.gz`; None when it is not there.

    Args:
        card: the dataset it belongs to.
        file: which one.
        root: the data root.
        splits_dir: a folder that holds the split files of several datasets; looked at instead of the data root.
    """
    folder = card.folder_in(root) if splits_dir is None else splits_dir
    names = [file.name] if splits_dir is None else [file.name, *([file.stored_as] if file.stored_as else [])]
    if splits_dir is not None and file.stored_as:
        names.reverse()  # `variants.txt` could be anybody's; `fgvc_variants.txt` is ours
    paths = [path for name in names for path in (folder / name, folder / f"{name}.gz")]
    files = [path for path in paths if os.path.isfile(path)]
    # What stands there and is no file (a folder, a pipe, a link that leads nowhere) is named when it is read.
    return next((path for path in files or paths if os.path.lexists(path)), None)


def content(path: Path) -> bytes:
    """The bytes of a text file, unpacked when its name ends in `.gz`.

    Raises:
        DataError: when it cannot be read or unpacked, is too large, no file, or what a download gives instead of one.
    """
    try:
        data = read_bytes(path, LARGEST)
        start = data[:200].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
        if stray := next((what for starts, what in STRAYS if start.startswith(starts)), None):
            raise Fault(stray)
        if path.suffix == ".gz":
            return _unpacked(data)
        if data.startswith(GZIP):
            raise Fault(f"is compressed: call it {path.name}.gz")
        return data
    except Fault as fault:
        raise DataError(f"{path} {fault}") from fault
    except FileNotFoundError as error:
        raise DataError(
            f"{path} is a link that leads nowhere" if path.is_symlink() else f"there is no {path}"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _unpacked(data: bytes) -> bytes:
    if not data.startswith(GZIP):
        raise Fault("cannot be read: it is not compressed by gzip, whatever its name says")
    with gzip.open(io.BytesIO(data)) as file:
        unpacked = file.read(LARGEST + 1)
    if len(unpacked) > LARGEST:
        raise Fault(f"unpacks to more than {LARGEST / 1e6:,.0f} MB, which no text file of a dataset has")
    return unpacked


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def named(card: Card, name: str) -> CardFile:
    """The entry of a card for a file.

    Raises:
        DataError: when the card does not list it.
    """
    for file in card.files:
        if file.name == name:
            return file
    raise DataError(f"card '{card.id}' does not name the file {name}, which its reader '{card.reader}' needs")


def open_file(card: Card, file: CardFile, root: Path, splits_dir: Path | None = None) -> tuple[Path, bytes]:
    """Path and content of a file that must be there.

    Raises:
        DataError: when it is missing.
    """
    path = find(card, file, root, splits_dir)
    if path is None:
        folder = card.folder_in(root) if splits_dir is None else splits_dir
        raise DataError(
            f"'{card.id}' needs {folder / file.name} (or {file.name}.gz), which does not exist; "
            "`clipbench data status` says where it comes from"
        )
    return path, content(path)


def check_hash(file: CardFile, path: Path, data: bytes) -> None:
    """Compares the uncompressed content with every accepted hash.

    Raises:
        DataError: when none fits.
    """
    found = sha256(data)
    if file.sha256 and found not in file.sha256:
        raise DataError(
            f"{path} is not the published file: its SHA-256 is {found}, expected {' or '.join(file.sha256)}"
        )
