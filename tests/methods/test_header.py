"""What learned weights say of themselves: typed, checked, read without a tensor, the same for the same run."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from clipbench.errors import MethodError
from clipbench.methods import header as header_module
from clipbench.methods.base import Method
from clipbench.methods.clipfit import CLIPFit
from clipbench.methods.coop import CoOp
from clipbench.methods.header import LARGEST, Header, content_digest, read_header, stated
from clipbench.methods.mft import MFT
from clipbench.methods.weights_file import digest_of, read_learned

Make = Callable[..., Any]


@pytest.fixture
def path(make: Make, tmp_path: Path) -> Path:
    """Learned weights of CoOp."""
    file = tmp_path / "x.safetensors"
    make(CoOp).save(file, "coop")
    return file


def put(path: Path, header: Header, tensors: Mapping[str, Tensor]) -> None:
    """Write a file whose digests are right, whatever it holds."""
    save_file(dict(tensors), path, metadata={"clipbench": stated(header, digest_of(tensors))})


def put_raw(path: Path, content: Any, header: Any = None) -> None:
    """Write a file with any metadata, as text or as what JSON makes of it."""
    text = content if isinstance(content, str) else json.dumps(content)
    metadata = {"clipbench": text} | ({} if header is None else {"header": json.dumps(header)})
    save_file({"a": torch.zeros(1)}, path, metadata=metadata)


FIELDS = [field.name for field in dataclasses.fields(Header)]
WRONG: list[Any] = [5, 0.5, True, [5], {"a": 5}, "", None, [None], [[]]]
RIGHT: dict[str, list[Any]] = {  # of these
    "init_args": [{"a": 5}], "recipe": [None], "dataset": [""], "train_seed": [5], "active_entries": [5, None],
    "class_path": [None], "data": [None], "trainer": [{"a": 5}, None], "also_trained": [None], "fits": [5, None],
}  # fmt: skip


@pytest.mark.parametrize("form", [1, 2, 3])
@pytest.mark.parametrize("field", FIELDS)
def test_every_field_has_its_type(path: Path, field: str, form: int) -> None:
    stored = read_header(path).as_dict()
    for value in WRONG:
        header = stored | {field: value}
        if form == 1:
            put_raw(path, "1", header)
        else:
            put_raw(path, json.loads(stated(Header(**header), "0" * 64)) | {"format": form})
        if any(type(value) is type(one) and value == one for one in RIGHT.get(field, [])):
            assert getattr(read_header(path), field) == value
        else:
            with pytest.raises(MethodError, match=rf"is damaged \(at header\.{field}"):
                read_header(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is damaged"),
        ("[" * 100_000, "is damaged"),
        ("null", "is damaged"),
        ("[]", "is damaged"),
        ('"3"', "is damaged"),
        ("{}", "is damaged"),
        ('{"format": 3, "header": NaN}', "holds NaN"),
        ('{"format": 3, "header": {"dataset": "\\ud800"}}', "surrogates"),
        ('{"format": 4}', "has format 4, this clipbench reads up to 3"),
        ('{"format": 0, "header": {}}', "less than the minimum"),
        ('{"format": 3, "header": {}, "tensors": 5, "digest": 5}', "is damaged"),
        ('{"format": 3, "header": {}, "more": 1}', "there is no key 'more'"),
    ],
)
def test_metadata_that_are_no_header(tmp_path: Path, content: str, says: str) -> None:
    put_raw(tmp_path / "x", content)
    with pytest.raises(MethodError, match=says):
        read_header(tmp_path / "x")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lambda data: b"", "it is empty"),
        (lambda data: data[:7], "cut off"),
        (lambda data: data[:500], "cut off"),
        (lambda data: data[:-1], "cannot be read as learned weights"),
        (lambda data: data + b"0", "cannot be read as learned weights"),
        (lambda data: b"\xff" * 64, "cut off"),
        (lambda data: b"PK\x03\x04" + data, "checkpoint of Lightning, which --ckpt_path takes"),
        (lambda data: (9).to_bytes(8, "little") + b'{"a":[1]}', "no learned weights"),
        (lambda data: (9).to_bytes(8, "little") + b"not JSON!", "no safetensors file"),
        (lambda data: (4).to_bytes(8, "little") + b"\xff\xfe\xfd\xfc", "no safetensors file"),
        (lambda data: (2).to_bytes(8, "little") + b"[]", "no safetensors file"),
        (lambda data: (LARGEST + 1).to_bytes(8, "little") + b" " * (LARGEST + 1), "stand before its tensors"),
    ],
)
def test_bytes_that_are_no_weights(path: Path, content: Callable[[bytes], bytes], says: str) -> None:
    path.write_bytes(content(path.read_bytes()))
    with pytest.raises(MethodError, match=says):
        read_learned(path)


def test_places_that_are_no_file(tmp_path: Path, path: Path) -> None:
    with pytest.raises(MethodError, match=r"it is a folder$"):
        read_header(tmp_path)
    path.rename(tmp_path / "weights.safetensors")
    with pytest.raises(MethodError, match=r"it is a folder; do you mean '.*weights\.safetensors'"):
        read_header(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(MethodError, match="a pipe or device"):
            read_learned(place)
    with pytest.raises(MethodError, match="null"):
        read_header(Path("a\0b"))


def test_a_file_larger_than_memory_is_refused_before_a_tensor_is_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sysconf", lambda _: 10)
    with pytest.raises(MethodError, match="this machine has 0 GB of memory"):
        read_learned(path)


@pytest.mark.parametrize("change", ["bool", "half", "shape", "missing", "extra", "not finite", "start"])
@pytest.mark.parametrize("kind", [CoOp, CLIPFit, MFT])
def test_tensors_are_those_of_the_method(make: Make, tmp_path: Path, kind: type[Method], change: str) -> None:
    path = tmp_path / "x"
    make(kind, **({"train": ["image tower, blocks all, Linears"]} if kind is MFT else {})).save(path)
    header, tensors = read_header(path), load_file(path)
    name, tensor = next(iter(tensors.items()))
    if change == "bool":
        tensors[name] = tensor.bool()
    elif change == "half":
        tensors[name] = tensor.half()
    elif change == "shape":
        tensors[name] = tensor.reshape(-1)[:-1].clone()
    elif change == "missing":
        del tensors[name]
    elif change == "not finite":
        tensors[name] = torch.full_like(tensor.float(), float("nan"))
    else:
        tensors["start/image.proj" if change == "start" else "more"] = torch.zeros(3)
    put(path, header, tensors)
    with pytest.raises(MethodError, match=r"not fit|not finite|is \d+ bytes|shape"):
        Method.load(path)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"lr": "0.1"}, "lr is a number"),
        ({"lr": [1]}, "lr is a number"),
        ({"lr": -1.0}, "lr must be above 0"),
        ({"n_context": True}, "n_context is a whole number"),
        ({"optimizer": 5}, "optimizer is one of sgd"),
        ({"optimizer": "sgdd"}, "did you mean 'sgd'"),
        ({"learning_rate": 1}, "unknown setting of CoOp 'learning_rate'"),
    ],
)
def test_settings_in_a_header_are_those_of_the_method(path: Path, settings: dict[str, Any], says: str) -> None:
    header = read_header(path)
    put(path, dataclasses.replace(header, init_args=header.init_args | settings), load_file(path))
    with pytest.raises(MethodError, match=says):
        Method.load(path)


@pytest.mark.parametrize("name", ["/etc/passwd", "local-dir:nowhere", "nothing", "/dev/zero"])
def test_a_backbone_that_is_not_here_is_named_by_its_place(path: Path, small: str, name: str) -> None:
    put(path, read_header(path).on(name), load_file(path))
    with pytest.raises(MethodError, match=r"x\.safetensors.*--backbone"):
        Method.load(path)
    loaded = Method.load(path, small)
    assert loaded.header.backbone == small


@pytest.mark.parametrize("name", ["/etc/passwd", "nothing", "/dev/zero"])
def test_a_wrong_place_of_the_backbone_is_not_called_the_one_that_it_learned_on(path: Path, name: str) -> None:
    with pytest.raises(MethodError) as error:
        Method.load(path, name)
    assert name in str(error.value)
    assert f"learned on backbone '{read_header(path).backbone}'" in str(error.value)


def test_a_changed_header_is_told(path: Path) -> None:
    content = path.read_bytes()
    assert b'\\"recipe\\": \\"coop\\"' in content
    path.write_bytes(content.replace(b'\\"recipe\\": \\"coop\\"', b'\\"recipe\\": \\"loop\\"'))
    with pytest.raises(MethodError, match="not the one that was saved"):
        read_header(path)


def test_the_content_is_the_same_wherever_backbone_and_data_lie(path: Path, tmp_path: Path) -> None:
    header, tensors = read_header(path), load_file(path)
    data = {"class_path": "ImageFolder", "init_args": {"root": "here", "shots": 4}}
    first = dataclasses.replace(header, data=data)
    put(path, first, tensors)
    digest = content_digest(path)
    moved = dataclasses.replace(first, data={**data, "init_args": {"root": "/there", "shots": 4}}, recipe="other")
    put(path, moved.on("local-dir:elsewhere"), tensors)
    assert content_digest(path) == digest
    for other in (
        dataclasses.replace(first, data={**data, "init_args": {"root": "here", "shots": 5}}),
        dataclasses.replace(first, classnames=["another"]),
    ):
        put(path, other, tensors)
        assert content_digest(path) != digest
    put(path, first, {name: tensor + 1 for name, tensor in tensors.items()})
    assert content_digest(path) != digest


def test_a_header_is_read_without_torch() -> None:
    import subprocess
    import sys

    code = "import sys, clipbench.methods.header; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
    assert header_module.FORMAT == 3
