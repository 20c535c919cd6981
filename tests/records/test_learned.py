"""Learned weights beside a record count only as the cell left them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from clipbench.methods.weights_file import Header, Learned
from clipbench.records import learned
from clipbench.records.store import RecordStore, write_record
from tests.records.records import CELL, record

HEADER = Header("CLIPFit", {}, "clipfit", "mini", "0" * 64, "coop", ["a {}."], "mini/dtd", ["a", "b"], 1)
Spoil = Callable[[bytes], bytes]


def flipped(content: bytes) -> bytes:
    """The same size and a sound header, another tensor."""
    return content[:-1] + bytes([content[-1] ^ 1])


SPOILT: dict[str, Spoil] = {
    "zeros": lambda content: bytes(len(content)),
    "cut off": lambda content: content[: len(content) // 2],
    "one bit": flipped,
    "longer": lambda content: content + b"\0",
    "empty": lambda content: b"",
}


def left(folder: Path, digest: bool, dtype: torch.dtype = torch.float32) -> tuple[RecordStore, str, Path]:
    """A finished cell with its learned weights; `digest`: whether its record keeps theirs."""
    store, key = RecordStore(folder), record()["key"]
    file = store.weights_for(CELL, key)
    tensors = {"scale": torch.ones(2, 3, dtype=dtype), "bias": torch.zeros((), dtype=dtype), "none": torch.ones(0, 4)}
    size = Learned(HEADER, tensors, {}).write(file)
    kept = {"weights": {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}} if digest else {}
    write_record(folder, record(cost={"stored_bytes": size}, **kept))
    return store, key, file


@pytest.mark.parametrize("digest", [True, False])
@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_weights_that_are_not_what_the_cell_left_make_it_undone(tmp_path: Path, spoil: Spoil, digest: bool) -> None:
    store, key, file = left(tmp_path, digest)
    assert store.why_undone(CELL, key) is None
    content = file.read_bytes()
    file.write_bytes(spoil(content))
    assert f"its learned weights '{file.name}'" in str(store.why_undone(CELL, key))
    file.unlink()
    assert "are missing" in str(store.why_undone(CELL, key))
    file.write_bytes(content)
    assert store.find(CELL, key) is not None


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool]
)
def test_weights_of_a_record_without_a_digest_are_believed_by_their_own(tmp_path: Path, dtype: torch.dtype) -> None:
    store, key, file = left(tmp_path, False, dtype)
    assert store.why_undone(CELL, key) is None
    file.write_bytes(flipped(file.read_bytes()))
    assert store.why_undone(CELL, key) is not None


def test_weights_of_format_1_are_believed_where_they_are_whole(tmp_path: Path) -> None:
    store, key, file = left(tmp_path, False)
    metadata = {"clipbench": "1", "header": json.dumps(HEADER.as_dict())}
    file.write_bytes(save(load(file.read_bytes()), metadata=metadata))
    write_record(tmp_path, record(cost={"stored_bytes": file.stat().st_size}))
    assert store.why_undone(CELL, key) is None


def test_a_large_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(learned, "LARGE", 1)
    store, key, file = left(tmp_path / "run", True)
    reads: list[Path] = []
    digest = learned.file_digest
    monkeypatch.setattr(learned, "file_digest", lambda path: reads.append(path) or digest(path))
    for _ in range(2):
        assert store.why_undone(CELL, key) is None
    assert reads == [file]
    file.write_bytes(flipped(file.read_bytes()))
    assert "are others" in str(store.why_undone(CELL, key))
