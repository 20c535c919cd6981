"""Files of weights as people have them: each loads, or one sentence says what it is."""

from __future__ import annotations

import collections
import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clipbench.backbone import build_backbone
from clipbench.backbone.checkpoint import read_tensors
from clipbench.backbone.torchscript import read_torchscript
from clipbench.errors import BackboneError
from tests.backbone.tiny_backbones import WEIGHTS

State = dict[str, Tensor]


class Node(nn.Module):
    """A module of a tree that has tensors only, and one that is no part of its state."""

    def __init__(self) -> None:
        super().__init__()
        self.attn_mask = torch.zeros(2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attn_mask.sum()


def as_torchscript(state: State, file: Path) -> None:
    """Write an archive as OpenAI's are: scripted modules whose state dict this is, with scalars among the buffers."""
    top = Node()
    for name, tensor in state.items():
        *path, last = name.split(".")
        node: nn.Module = top
        for part in path:
            if part not in dict(node.named_children()):
                node.add_module(part, Node())
            node = dict(node.named_children())[part]
        node.register_parameter(last, nn.Parameter(tensor, requires_grad=False))
    for name in ("input_resolution", "context_length", "vocab_size"):
        top.register_buffer(name, torch.tensor(20))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(top), str(file))


def shards(state: State, file: Path) -> None:
    names = sorted(state)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for part, some in parts.items():
        save_file({name: state[name] for name in some}, file.parent / part)
    index = {"weight_map": {name: part for part, some in parts.items() for name in some}}
    file.write_text(json.dumps(index))


def saved(change: Callable[[State], Any], **options: Any) -> Callable[[State, Path], None]:
    return lambda state, file: torch.save(change(state), file, **options)


def named(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


LOADS = {
    "torch.save": (saved(dict), "w.pt"),
    "as torch before 1.6": (saved(dict, _use_new_zipfile_serialization=False), "w.pth"),
    "ordered": (saved(collections.OrderedDict), "w.bin"),
    "safetensors under another ending": (save_file, "w.bin"),
    "torch.save under another ending": (saved(dict), "w.safetensors"),
    "an ending of Dassl": (saved(lambda s: {"state_dict": s, "epoch": 5}), "model.pth.tar-50"),
    "TorchScript": (as_torchscript, "w.pt"),
    "shards": (shards, "w.safetensors.index.json"),
    "numbers beside tensors": (saved(lambda s: s | {"epoch": 3, "name": "run", "lr": 0.1, "args": None}), "w.pt"),
    "optimiser beside it": (
        saved(lambda s: {"model": s, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{}]}}),
        "w.ckpt",
    ),
    "two keys deep": (saved(lambda s: {"state_dict": {"model": s}}), "w.pt"),
    **{
        f"under {key}": (saved(lambda s, key=key: {key: s, "step": 1}), "w.pt")
        for key in ("state_dict", "model", "module", "model_state_dict", "ema", "net")
    },
    **{
        f"names begin with {prefix}": (saved(named(prefix)), "w.pt")
        for prefix in ("module.", "_orig_mod.", "model.", "clip.", "module.model.", "module._orig_mod.")
    },
}


@pytest.mark.parametrize("form", LOADS)
def test_weights_load_in_every_form_that_people_have(form: str, written: Path, architecture: str) -> None:
    write, name = LOADS[form]
    state = load_file(written / WEIGHTS)
    (written / WEIGHTS).unlink()
    write(state, written / name)
    built = build_backbone(f"{architecture}@{written}/{name}?activation=gelu")
    assert all(torch.equal(built.to_open_clip_state_dict()[one], tensor) for one, tensor in state.items())


def lfs(file: Path) -> None:
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")


def cut(write: Callable[[State, Path], None], keep: float) -> Callable[[State, Path], None]:
    def cutting(state: State, file: Path) -> None:
        write(state, file)
        file.write_bytes(file.read_bytes()[: int(keep * file.stat().st_size)])

    return cutting


def zipped(name: str) -> Callable[[State, Path], None]:
    def write(state: State, file: Path) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(name, b"0")

    return write


REFUSED = {
    "empty": (lambda s, f: f.touch(), "it is empty"),
    "a login page": (lambda s, f: f.write_text("\n<!DOCTYPE html><html>Please log in"), "is a web page"),
    "a pointer of Git LFS": (lambda s, f: lfs(f), "pointer of Git LFS.*git lfs pull"),
    "zeros": (lambda s, f: f.write_bytes(bytes(1000)), "begins with zeros"),
    "noise": (lambda s, f: f.write_bytes(b"garbage" * 40), "none of safetensors, torch.save and TorchScript"),
    "a compressed file": (lambda s, f: f.write_bytes(b"\x1f\x8b" + bytes(90)), "is compressed: unpack it"),
    "HDF5": (lambda s, f: f.write_bytes(b"\x89HDF" + bytes(90)), "HDF5"),
    "cut safetensors": (cut(save_file, 0.5), r"is cut off, [\d,]+ of [\d,]+ bytes"),
    "cut header": (cut(save_file, 0.02), "is cut off"),
    "cut torch.save": (cut(saved(dict), 0.5), "cut off or damaged"),
    "cut TorchScript": (cut(as_torchscript, 0.7), "cut off or damaged"),
    "cut pickle": (cut(saved(dict, _use_new_zipfile_serialization=False), 0.3), "cannot be read as weights"),
    "JAX": (zipped("params/img/a.npy"), "archive of NumPy arrays"),
    "a zip of other things": (zipped("readme.txt"), "zip archive without weights.*readme.txt"),
    "nothing but settings": (saved(lambda s: {"epoch": 3, "args": [1]}), r"no state dict.*'epoch' \(3\), 'args'"),
    "one tensor": (saved(lambda s: s["logit_scale"]), "no state dict of tensors but one tensor of shape"),
    "a list": (saved(lambda s: list(s.values())), "no state dict of tensors but list of"),
    "two state dicts": (saved(lambda s: {"model": s, "ema": s}), r"several state dicts \(model, ema\)"),
    "a prompt of CoOp": (
        saved(lambda s: {"state_dict": {"ctx": torch.zeros(16, 8), "token_prefix": torch.zeros(2, 1, 8)}, "epoch": 50}),
        "a prompt learned by CoOp",
    ),
    "a model of CoOp": (
        saved(lambda s: {"prompt_learner.ctx": s["ln_final.bias"], "image_encoder.a": s["logit_scale"]}),
        "a prompt learned by CoOp",
    ),
    "Hugging Face": (
        saved(lambda s: {"vision_model.a": s["logit_scale"], "text_model.a": s["logit_scale"]}),
        "a model of Hugging Face transformers",
    ),
    "an image tower": (
        saved(lambda s: {n: t for n, t in s.items() if n.startswith("visual.")}), "image tower alone, without a text"
    ),
    "LoRA": (saved(lambda s: {"base_model.model.a.lora_A.weight": s["logit_scale"]}), "low-rank factors"),
    "NaN": (
        saved(lambda s: s | {"ln_final.bias": torch.full((16,), float("nan"))}),
        "16 of the 16 numbers of tensor 'ln_final.bias' are NaN or infinite",
    ),
    "infinity": (
        saved(lambda s: s | {"visual.proj": s["visual.proj"].index_fill(0, torch.tensor([3]), float("-inf"))}),
        "12 of the 288 numbers of tensor 'visual.proj' are NaN",
    ),
    "a scale of 1e30": (saved(lambda s: s | {"logit_scale": torch.tensor(1e30)}), r"logit_scale 1e\+30 is infinite"),
    "two scales": (saved(lambda s: s | {"logit_scale": torch.ones(2)}), "logit_scale is 2, not one number"),
    "positions of no square": (
        saved(lambda s: s | {"visual.positional_embedding": torch.ones(8, 24)}), "embedding is 8x24, not 5x24"
    ),
    "whole numbers": (saved(lambda s: s | {"ln_final.bias": torch.ones(16, dtype=torch.int64)}), "is int64, not float"),
    "yes and no": (saved(lambda s: s | {"visual.proj": torch.ones(24, 12, dtype=torch.bool)}), "proj is bool, not flo"),
    "sparse": (saved(lambda s: s | {"visual.proj": s["visual.proj"].to_sparse()}), "'visual.proj' is sparse"),
    "no numbers": (saved(lambda s: s | {"visual.proj": torch.empty(24, 12, device="meta")}), "holds no numbers"),
    "a flat patch": (saved(lambda s: s | {"visual.conv1.weight": torch.ones(24)}), "conv1.weight is 24, not 24x3x8x8"),
    "two thirds": (
        saved(lambda s: s | {"transformer.resblocks.0.attn.in_proj_bias": torch.ones(32)}), "in_proj_bias is 32, not 48"
    ),
    "another image size": (
        saved(lambda s: s | {"visual.positional_embedding": torch.ones(10, 24)}), "embedding is 10x24, not 5x"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_such_weights_is_said_in_one_sentence(kind: str, written: Path, architecture: str) -> None:
    make, message = REFUSED[kind]
    make(load_file(written / WEIGHTS), written / "w.pt")
    with pytest.raises(BackboneError, match=message) as error:
        build_backbone(f"{architecture}@{written}/w.pt?activation=gelu")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


def test_weights_of_another_architecture_are_named_by_their_shapes(tmp_path: Path) -> None:
    state = {
        "token_embedding.weight": (49408, 512), "positional_embedding": (77, 512), "text_projection": (512, 512),
        "visual.conv1.weight": (768, 3, 32, 32), "visual.positional_embedding": (50, 768), "logit_scale": (),
        **{f"transformer.resblocks.{i}.ln_1.bias": (512,) for i in range(12)},
        **{f"visual.transformer.resblocks.{i}.ln_1.bias": (768,) for i in range(12)},
    }  # fmt: skip
    torch.save({name: torch.zeros(()).expand(shape) for name, shape in state.items()}, tmp_path / "w.pt")
    with pytest.raises(
        BackboneError, match=r"another architecture than ViT-B-16.*; by their shapes they are ViT-B-32$"
    ):
        build_backbone(f"ViT-B-16@{tmp_path}/w.pt?activation=gelu")
    with pytest.raises(BackboneError, match=r"by its shapes it is ViT-B-32: name it 'ViT-B-32@.*w.pt'$"):
        build_backbone(f"{tmp_path}/w.pt")


def test_learned_weights_are_no_backbone(written: Path) -> None:
    save_file({"context": torch.zeros(2)}, written / WEIGHTS, metadata={"clipbench": "{}"})
    with pytest.raises(BackboneError, match="what a method learned, not a backbone: it is for --weights"):
        build_backbone(f"local-dir:{written}")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "not an index of shards"),
        ("[]", "not an index of shards"),
        ('{"weight_map": {"a": "../x.safetensors"}}', "'../x.safetensors', which is no file beside it"),
        ('{"weight_map": {"a": "x.safetensors"}}', "shards that are not there: x.safetensors"),
        ('{"weight_map": {"a": "open_clip_model.safetensors"}}', "do not hold a"),
    ],
)
def test_an_index_of_shards_names_files_beside_it(index: str, message: str, written: Path) -> None:
    file = written / "model.safetensors.index.json"
    file.write_text(index)
    with pytest.raises(BackboneError, match=re.escape(message)):
        read_tensors(file)


def test_pipes_and_folders_are_not_waited_for(written: Path, architecture: str) -> None:
    os.mkfifo(written / "w.pt")
    (written / "folder").mkdir()
    for name, message in (
        ("w.pt", "is a pipe"),
        ("folder", "is a folder; name the checkpoint file"),
        ("x", "no check"),
    ):
        with pytest.raises(BackboneError, match=message):
            build_backbone(f"{architecture}@{written}/{name}")
    (written / WEIGHTS).unlink()
    os.mkfifo(written / WEIGHTS)
    with pytest.raises(BackboneError, match="is a pipe"):
        build_backbone(f"local-dir:{written}")


class Runs:
    """Would make a folder when unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.file),))


@pytest.mark.parametrize("pickled", ["torch.save", "pickle", "TorchScript"])
def test_no_file_of_weights_runs_code(pickled: str, tmp_path: Path) -> None:
    file, trace = tmp_path / "w.pt", tmp_path / "ran"
    if pickled == "torch.save":
        torch.save({"a": Runs(trace)}, file)
    elif pickled == "pickle":
        file.write_bytes(pickle.dumps({"a": Runs(trace)}, protocol=2))
    else:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("w/constants.pkl", pickle.dumps(()))
            archive.writestr("w/data.pkl", pickle.dumps(Runs(trace), protocol=2))
    with pytest.raises(BackboneError, match=r"holds more than tensors|Unsupported global: posix.mkdir"):
        read_tensors(file)
    assert not trace.exists()


def test_the_tensors_of_torchscript_are_those_of_its_state_dict(tmp_path: Path) -> None:
    tied = torch.randn(4, 6)
    state = {"a.0.weight": tied.t(), "a.1.weight": tied[1:, ::2], "b": torch.randn(3).half(), "c.d": torch.tensor(2.5)}
    as_torchscript(state, tmp_path / "w.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = torch.jit.load(str(tmp_path / "w.pt")).state_dict()
    ours = read_torchscript(tmp_path / "w.pt")
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype
        assert torch.equal(ours[name], tensor), name


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), form=st.sampled_from(["safetensors", "torch.save", "as torch before 1.6", "TorchScript"]))
def test_damaged_bytes_are_one_sentence_or_other_numbers(data: st.DataObject, form: str, tmp_path: Path) -> None:
    """Whatever byte is another one: a sentence, never another exception."""
    write = {**{name: make for name, (make, _) in LOADS.items()}, "safetensors": save_file}[form]
    file = tmp_path / "w"
    if not (tmp_path / form).exists():
        write({"a.b": torch.arange(6.0).reshape(2, 3), "c": torch.ones(2).half()}, tmp_path / form)
    content = bytearray((tmp_path / form).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(content)
    said = ""
    try:
        assert all(isinstance(tensor, Tensor) for tensor in read_tensors(file).values())
    except BackboneError as error:
        said = str(error)
    assert "\n" not in said
