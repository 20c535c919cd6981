"""The hash of the loaded tensors: what a record knows a backbone by."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from clipbench.atomic import replacing
from clipbench.errors import RecordError
from clipbench.resources import cache_dir

FORMAT = 1  # of the hash; change it when the bytes that are hashed change


def hash_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 of named tensors, independent of their order.

    Args:
        tensors: name and tensor; name, type, shape and bytes count.

    Returns:
        64 hexadecimal digits.
    """
    whole = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        data = tensor.detach().cpu().contiguous()
        whole.update(f"{name}\x1f{data.dtype}\x1f{tuple(data.shape)}\x1f".encode())
        whole.update(data.reshape(-1).view(torch.uint8).numpy().data if data.numel() else b"")
    return whole.hexdigest()


def _entry(key: str) -> Path:
    return cache_dir() / "hashes" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def file_key(file: Path, *more: object) -> str:
    """Key of a hash in the cache: path, size and time of the weights file, and what else decides the tensors."""
    status = file.stat()
    return json.dumps([FORMAT, str(file.resolve()), status.st_size, status.st_mtime_ns, *map(str, more)])


def read_cached(key: str) -> str | None:
    """The hash that was stored under a key, if any."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        stored = json.loads(_entry(key).read_text())
        if stored["key"] == key:
            return str(stored["hash"])
    return None


def write_cached(key: str, value: str) -> None:
    """Store a hash; a cache that cannot be written is no reason to stop."""
    with contextlib.suppress(RecordError), replacing(_entry(key)) as temporary:
        temporary.write_text(json.dumps({"key": key, "hash": value}))
