"""Whether the learned weights beside a record are those that its cell left there; without torch."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

from clipbench.atomic import write_text
from clipbench.errors import RecordError
from clipbench.resources import cache_dir

LARGE = 32 << 20  # bytes; a smaller file is read faster than a remembered digest is looked up and trusted
# as safetensors calls types, and as the digest that stands in a file of weights does
TYPES = {
    "F64": "torch.float64", "F32": "torch.float32", "F16": "torch.float16", "BF16": "torch.bfloat16",
    "I64": "torch.int64", "I32": "torch.int32", "I16": "torch.int16", "I8": "torch.int8", "U8": "torch.uint8",
    "BOOL": "torch.bool",
}  # fmt: skip


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def why_not_left(path: Path, size: int, digest: str | None) -> str | None:
    """Why a file is not what its cell left, in a few words, or None where it is.

    Args:
        path: the learned weights.
        size: their bytes, as the record says.
        digest: their SHA-256, as the record says; None in a record from before it was kept: then the file is believed
            where it is whole and its tensors are those that its own header speaks of.
    """
    name = f"its learned weights '{path.name}'"
    try:
        if not path.is_file():
            return f"{name} are missing"
        if path.stat().st_size != size:
            return f"{name} are damaged: {path.stat().st_size} bytes, not the {size} that it left"
        if digest is None:
            return None if _is_sound(path) else f"{name} are damaged"
        return None if _remembered_digest(path) == digest else f"{name} are others than it left, or damaged"
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}"


def _remembered_digest(path: Path) -> str:
    """The digest of a file; of a large one it is remembered by path, size and times."""
    status = path.stat()
    if status.st_size < LARGE:
        return file_digest(path)
    key = [str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
    entry = cache_dir() / "digests" / f"{hashlib.sha256(os.fsencode(str(key))).hexdigest()[:24]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(entry.read_text(encoding="utf-8"))
        if known["key"] == key:
            return str(known["sha256"])
    digest = file_digest(path)
    with contextlib.suppress(RecordError):  # a cache that cannot be written is no reason to stop
        write_text(entry, json.dumps({"key": key, "sha256": digest}))
    return digest


def _is_sound(path: Path) -> bool:
    """Whether a file is whole safetensors of ours and, where it has a digest of its tensors, these are the ones."""
    content = memoryview(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    try:
        tensors = json.loads(bytes(content[8:start]))
        stated = json.loads(tensors.pop("__metadata__")["clipbench"])
        if max((one["data_offsets"][1] for one in tensors.values()), default=0) != len(content) - start:
            return False
        if not isinstance(stated, dict):  # format 1 says its number only
            return True
        digest = hashlib.sha256()
        for name in sorted(tensors):
            one = tensors[name]
            begin, end = one["data_offsets"]
            digest.update(f"{name} {TYPES[one['dtype']]} {tuple(one['shape'])} ".encode())
            digest.update(content[start + begin : start + end])
        return digest.hexdigest() == stated["tensors"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
