"""The text files of a dataset: where they lie (its folder, or one folder for all; plain or gzipped), their hashes."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path

from clipbench.data.cards import Card, CardFile
from clipbench.errors import DataError


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
    for name in names:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    return None


def content(path: Path) -> bytes:
    """The bytes of a file, unpacked when its name ends in `.gz`.

    Raises:
        DataError: when it cannot be read or unpacked.
    """
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


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
