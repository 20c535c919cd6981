"""What was learned, stored and refused where it does not belong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from clipbench.errors import MethodError
from clipbench.methods.base import Method
from clipbench.methods.clipfit import CLIPFit
from clipbench.methods.coop import CoOp
from clipbench.methods.weights_file import read_header, read_learned
from clipbench.testing.backbones import TEXT, VISION, write


def test_header_and_tensors(make: Callable[..., CoOp], tmp_path: Path) -> None:
    method, path = make(CoOp), tmp_path / "deep" / "x.safetensors"
    assert method.save(path, "coop") == path.stat().st_size
    header = read_header(path)
    assert (header.method, header.dataset, header.recipe) == ("CoOp", "toys", "coop")
    assert header.classnames == list(method.classnames)
    assert header.backbone_hash == method.backbone.hash
    assert list(load_file(path)) == ["context.vectors"]
    assert [p.name for p in path.parent.iterdir()] == ["x.safetensors"], "a temporary file stayed"


def test_loads_for_other_class_names(make: Callable[..., CLIPFit], tmp_path: Path) -> None:
    method, path = make(CLIPFit), tmp_path / "x.safetensors"
    with torch.no_grad():
        for parameter in method.trainable.values():
            parameter.add_(0.1)
    expected = method.class_features(("one", "two", "three four"))
    method.save(path)
    loaded = CLIPFit.load(path)
    assert torch.equal(loaded.class_features(("one", "two", "three four")), expected)
    assert loaded.templates == method.templates


def test_another_backbone_is_refused(make: Callable[..., CoOp], tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    make(CoOp).save(path)
    other = make(CoOp, backbone=write(tmp_path / "other", VISION, TEXT, seed=1))
    with pytest.raises(MethodError, match="learned on backbone"):
        other.setup(learned=read_learned(path))
    with pytest.raises(MethodError, match=r"x\.safetensors.*learned on backbone"):
        CoOp.load(path, backbone=other.backbone_name)


def test_another_method_or_shape_is_refused(make: Callable[..., CoOp], tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    make(CoOp).save(path)
    with pytest.raises(MethodError, match="do not fit"):
        make(CoOp, context_words="", n_context=5).setup(learned=read_learned(path))
    with pytest.raises(MethodError, match="learned by CoOp, not by CLIPFit"):
        CLIPFit.load(path)
    assert isinstance(Method.load(path), CoOp)


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(MethodError, match="no learned weights of clipbench"):
        read_header(path)
    path.write_bytes(b"no safetensors at all")
    with pytest.raises(MethodError, match="cannot be read"):
        read_header(path)
    with pytest.raises(MethodError, match="there is no file of learned weights"):
        read_header(tmp_path / "missing.safetensors")


def test_a_name_in_a_file_is_never_imported(make: Callable[..., CoOp], tmp_path: Path) -> None:
    path, mark = tmp_path / "x.safetensors", tmp_path / "mark"
    make(CoOp).save(path)
    header = read_header(path).__dict__ | {
        "method": "subprocess.check_call",
        "init_args": {"args": ["touch", str(mark)]},
    }
    save_file(load_file(path), path, metadata={"clipbench": "1", "header": json.dumps(header)})
    with pytest.raises(MethodError, match="not installed here"):
        Method.load(path)
    assert not mark.exists()


def test_a_damaged_header_is_told(make: Callable[..., CoOp], tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata={"clipbench": "1", "header": '{"method": "CoOp"}'})
    with pytest.raises(MethodError, match=r"header .* is damaged"):
        read_header(path)
