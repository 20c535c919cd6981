"""What is remembered of weights files: hashes that take seconds, each under everything that tells two files apart.

A remembered hash saves a plan the reading of weights. It is never believed where tensors are loaded: those are hashed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from pathlib import Path

from clipbench.atomic import replacing
from clipbench.backbone import catalogue
from clipbench.errors import RecordError
from clipbench.resources import cache_dir

FORMAT = 2  # of an entry
LARGEST = 1 << 16  # bytes of an entry; what is longer was not written here
ZIP = b"PK\x03\x04"  # what OpenAI's files begin with


def file_key(file: Path, *more: object) -> str:
    """Key of an entry: path, size, times and inode of a file, and what else decides the value."""
    status = file.stat()
    state = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
    return json.dumps([FORMAT, str(file.resolve()), *state, *map(str, more)])


def recall(key: str) -> str | None:
    """The hash that is remembered under a key, if any; what is damaged or no plain file counts as none."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
        entry = _entry(key)
        if entry.is_file() and entry.stat().st_size <= LARGEST:
            stored = json.loads(entry.read_text(encoding="utf-8"))
            if stored["key"] == key and re.fullmatch(r"[0-9a-f]{64}", stored["hash"]):
                return str(stored["hash"])
    return None


def remember(key: str, value: str) -> None:
    """Remember a hash; a cache that cannot be written is no reason to stop."""
    if recall(key) == value:
        return
    with contextlib.suppress(RecordError), replacing(_entry(key)) as temporary:
        temporary.write_text(json.dumps({"key": key, "hash": value}), encoding="utf-8")


def _entry(key: str) -> Path:
    return cache_dir() / "hashes" / f"{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:24]}.json"


_DIGESTS: dict[str, str] = {}  # of this process, where no cache can be written


def file_digest(file: Path) -> str:
    """SHA-256 of a file, hexadecimal; read once for as long as it stays the same.

    Raises:
        OSError: it cannot be read.
    """
    key = file_key(file, "file")
    known = _DIGESTS.get(key) or recall(key)
    if known is None:
        digest = hashlib.sha256()
        with file.open("rb") as opened:
            while block := opened.read(1 << 22):
                digest.update(block)
        known = digest.hexdigest()
        remember(key, known)
    _DIGESTS[key] = known
    return known


def openai_architecture(file: Path) -> str | None:
    """The architecture whose weights OpenAI published as this very file, wherever it lies; None for any other file."""
    with contextlib.suppress(OSError):
        if os.path.isfile(file):
            with file.open("rb") as opened:
                if opened.read(len(ZIP)) != ZIP:
                    return None
            return catalogue.openai_digests().get(file_digest(file))
    return None
