"""What is remembered of weights files saves time, and is believed only as long as nothing speaks against it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from clipbench.backbone import backbone_hash, build_backbone, clip, memory
from tests.backbone.tiny_backbones import WEIGHTS


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLIPBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def entries(cache: Path) -> list[Path]:
    return sorted((cache / "hashes").glob("*.json"))


def test_a_loaded_backbone_has_the_hash_of_its_tensors_whatever_is_remembered(written: Path) -> None:
    name, key = f"local-dir:{written}", memory.file_key(written / WEIGHTS, "clip", "native")
    right = build_backbone(name).hash
    assert backbone_hash(name) == right == memory.recall(key)
    memory.remember(key, "0" * 64)
    assert backbone_hash(name) == "0" * 64  # a plan may believe it
    assert build_backbone(name).hash == right  # what is computed with does not
    assert memory.recall(key) == right


def test_other_weights_of_equal_size_and_time_are_other_weights(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, file = f"local-dir:{written}", written / WEIGHTS
    before, status = build_backbone(name).hash, file.stat()
    state = load_file(file)
    save_file(state | {"logit_scale": state["logit_scale"] + 1}, file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_size == status.st_size
    monkeypatch.setattr(clip, "_SHARED", {})
    assert backbone_hash(name) != before


def damage(entry: Path, kind: str) -> None:
    entry.unlink()
    if kind == "a pipe":
        os.mkfifo(entry)
    elif kind == "a folder":
        entry.mkdir()
    else:
        entry.write_bytes(
            {
                "empty": b"", "cut": b'{"key": ', "a list": b"[]", "other types": b'{"key": 1, "hash": 2}',
                "not UTF-8": b"\xff\xfe", "nested": b"[" * 100_000, "large": b" " * 1_000_000,
            }[kind]
        )  # fmt: skip


@pytest.mark.parametrize(
    "kind", ["empty", "cut", "a list", "other types", "not UTF-8", "nested", "large", "a pipe", "a folder"]
)
def test_a_damaged_entry_counts_as_none_and_nothing_waits_for_it(kind: str, tmp_path: Path, empty: Path) -> None:
    file = tmp_path / "w"
    file.write_bytes(b"1")
    right = memory.file_digest(file)
    damage(entries(empty)[0], kind)
    memory._DIGESTS.clear()
    assert memory.recall(memory.file_key(file, "file")) is None
    assert memory.file_digest(file) == right == hashlib.sha256(b"1").hexdigest()
    if kind not in ("a folder", "a pipe"):  # they stay where they are
        assert memory.recall(memory.file_key(file, "file")) == right


@pytest.mark.parametrize("value", ["", "0" * 63, "X" * 64, "a b"])
def test_only_a_hash_is_recalled(value: str, empty: Path) -> None:
    memory.remember("key", "0" * 64)
    entry = entries(empty)[0]
    entry.write_text(entry.read_text().replace("0" * 64, value))
    assert memory.recall("key") is None


def test_the_weights_of_openai_are_known_by_the_digest_in_their_address(
    written: Path, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the file lies, and under which name; then the activation need not be said."""
    from clipbench.backbone import catalogue, resolve_spec
    from clipbench.backbone.load import known_weights

    elsewhere = written / "somewhere" / "renamed.bin"
    elsewhere.parent.mkdir()
    torch.save({name: tensor.half() for name, tensor in load_file(written / WEIGHTS).items()}, elsewhere)
    digest = hashlib.sha256(elsewhere.read_bytes()).hexdigest()
    tags = {"openai": {"url": f"https://openaipublic.x/clip/models/{digest}/Tiny.pt", "quick_gelu": True}}
    monkeypatch.setattr(catalogue, "pretrained_tags", lambda: {architecture: tags})
    monkeypatch.setattr(catalogue, "OPENAI_NAMES", {"Tiny/8": architecture})
    assert catalogue.openai_digests() == {digest: architecture}
    for name in (f"{architecture}@{elsewhere}", str(elsewhere)):
        spec = resolve_spec(name)
        assert (spec.activation, spec.architecture, known_weights(spec)) == ("quickgelu", architecture, "Tiny-8/openai")
    resized = resolve_spec(f"{architecture}@{elsewhere}?image_size=24")
    assert (resized.activation, known_weights(resized)) == ("quickgelu", "")
    elsewhere.write_bytes(elsewhere.read_bytes() + b"\0")
    assert known_weights(resolve_spec(f"{architecture}@{elsewhere}")) == ""


def test_the_nine_digests_are_those_of_openai() -> None:
    from clipbench.backbone import catalogue

    digests = catalogue.openai_digests()
    assert sorted(digests.values()) == sorted(catalogue.OPENAI_NAMES.values())
    assert all(len(digest) == 64 for digest in digests)
    assert digests["5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"] == "ViT-B-16"
