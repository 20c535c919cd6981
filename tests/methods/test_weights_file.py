"""What was learned, stored and refused where it does not belong."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from clipbench.errors import MethodError
from clipbench.methods.adapter import Adapter
from clipbench.methods.base import Method
from clipbench.methods.clipfit import CLIPFit
from clipbench.methods.coop import CoOp
from clipbench.methods.mft import MFT
from clipbench.methods.ramt import RAMT
from clipbench.methods.weights_file import read_header, read_learned
from clipbench.methods.wiseft import WiSEFT
from clipbench.methods.zero_shot import ZeroShot
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
    learned, stored = read_header(path).__dict__, load_file(path)
    for learner in ("subprocess.check_call", "antigravity.Method", None):
        header = learned | {
            "method": "subprocess.check_call",
            "init_args": {"args": ["touch", str(mark)]},
            "class_path": learner,
        }
        save_file(stored, path, metadata={"clipbench": "1", "header": json.dumps(header)})
        with pytest.raises(MethodError, match="not installed here"):
            Method.load(path)
    assert not mark.exists()
    assert "antigravity" not in sys.modules


def test_equal_weights_are_equal_files_and_damaged_ones_are_refused(make: Callable[..., CoOp], tmp_path: Path) -> None:
    method = make(CoOp)
    files = []
    for number in range(8):  # the order of several keys of metadata would differ from time to time
        method.save(tmp_path / f"{number}.safetensors")
        files.append((tmp_path / f"{number}.safetensors").read_bytes())
    assert len(set(files)) == 1
    damaged = bytearray(files[0])
    damaged[-3] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(damaged)
    with pytest.raises(MethodError, match=r"damaged\.safetensors' are not those that were saved"):
        Method.load(tmp_path / "damaged.safetensors")


def test_a_lazy_module_imports_nothing_for_a_file(make: Callable[..., CoOp], tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    make(OfAFile).save(path)
    header = read_header(path).__dict__ | {"class_path": "lazy_module.OfAFile"}
    module: Any = ModuleType("lazy_module")
    module.__getattr__ = lambda name: pytest.fail(f"'{name}' was asked of a module that a file names")
    sys.modules[module.__name__] = module
    save_file(load_file(path), path, metadata={"clipbench": "1", "header": json.dumps(header)})
    try:
        with pytest.raises(MethodError, match="not installed here"):
            Method.load(path)
    finally:
        del sys.modules[module.__name__]


def test_two_classes_of_one_name_never_take_the_others_weights(make: Callable[..., CoOp], tmp_path: Path) -> None:
    mine: Any = type("CoOp", (CoOp,), {"__module__": __name__})
    path = tmp_path / "x.safetensors"
    make(mine).save(path)
    assert type(Method.load(path)) is mine
    with pytest.raises(MethodError, match=rf"learned by {__name__}\.CoOp, not by clipbench\.methods\.coop\.CoOp"):
        CoOp.load(path)
    make(CoOp).save(path)
    assert type(Method.load(path)) is CoOp
    with pytest.raises(MethodError, match=rf"learned by clipbench\.methods\.coop\.CoOp, not by {__name__}\.CoOp"):
        mine.load(path)


@pytest.mark.parametrize(
    ("learner", "found"),
    [
        (f"{__name__}.OfAFile", True),
        (f"{__name__.partition('.')[0]}.elsewhere.OfAFile", True),  # moved inside its package
        ("__main__.OfAFile", True),  # out of a script or notebook
        ("another_package.OfAFile", False),
    ],
)
def test_a_class_that_is_imported_is_found_by_its_path(
    make: Callable[..., CoOp], learner: str, found: bool, tmp_path: Path
) -> None:
    path = tmp_path / "x.safetensors"
    make(OfAFile).save(path)
    header = read_header(path).__dict__ | {"class_path": learner}
    save_file(load_file(path), path, metadata={"clipbench": "1", "header": json.dumps(header)})
    assert type(OfAFile.load(path)) is OfAFile, "whoever names the class knows it"
    if found:
        assert type(Method.load(path)) is OfAFile
    else:
        with pytest.raises(MethodError, match=r"not installed here; .* loads it by OfAFile\.load\(path\)"):
            Method.load(path)


def test_files_without_a_class_path_are_of_ours(make: Callable[..., CoOp], tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    make(CoOp).save(path)
    header = {name: value for name, value in read_header(path).__dict__.items() if name != "class_path"}
    save_file(load_file(path), path, metadata={"clipbench": "1", "header": json.dumps(header)})
    assert type(Method.load(path)) is CoOp
    save_file(load_file(path), path, metadata={"clipbench": "1", "header": json.dumps(header | {"class_path": 5})})
    with pytest.raises(MethodError, match="is damaged"):
        read_header(path)


class OfAFile(CoOp):
    """A method that is not installed."""


FORMER = {"optimizer": "sgd", "lr": 0.002, "momentum": 0.9, "weight_decay": 5e-4, "schedule": "cosine"} | {
    "warmup_epochs": 1, "warmup_lr": 1e-5, "warmup_steps": 0, "final_lr": 0.0, "template_set": "coop",
}  # fmt: skip
LINEARS = ["image tower, blocks all, Linears"]
PLACED = FORMER | {"start": None, "distillation_weight": 0.0}
OF_BEFORE: dict[str, tuple[type[Method], dict[str, Any], dict[str, Any]]] = {
    "zero_shot": (ZeroShot, {}, FORMER),
    "coop": (CoOp, {}, FORMER | {"context_words": "a photo of a", "n_context": 16, "position": "end"}),
    "clipfit": (CLIPFit, {"optimizer": "adamw"}, PLACED | {"optimizer": "adamw", "text_biases": True}),
    "adapter": (Adapter, {"n_adapters": 3}, PLACED | {"n": 3, "reduction": 16, "schedule": "cosine_per_step"}),
    "mft": (
        MFT,
        {"train": LINEARS, "rule": "topk_abs", "keep": 0.7},
        PLACED | {"rule": "topk_abs", "keep": 0.7, "threshold": 0.005, "init": "magnitude", "init_value": 0.02}
        | {"travel": 2.0, "train": LINEARS},
    ),
    "mft_soft": (
        MFT,
        {"train": LINEARS, "rule": "soft", "lr_rule": None, "score_init": "constant", "score_scale": 0.0, "lr": 0.001},
        PLACED | {"rule": "soft", "keep": 0.9, "threshold": 0.005, "init": "constant", "init_value": 0.0}
        | {"travel": None, "lr": 0.001, "train": LINEARS},
    ),
    "ramt": (RAMT, {"gdr_lambda": 0.5, "score_init": 0.02}, PLACED | {"l": 0.5, "initial": 0.02, "penalty": 1e-4}),
}  # fmt: skip


@pytest.mark.parametrize("name", OF_BEFORE)
def test_files_of_before_version_0_2_stay_readable(make: Callable[..., Any], tmp_path: Path, name: str) -> None:
    """They name some arguments otherwise and list settings that nothing read."""
    kind, now, before = OF_BEFORE[name]
    path, images = tmp_path / "x.safetensors", torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    method = make(kind, **now)
    with torch.no_grad():
        for parameter in method.trainable.values():
            parameter.add_(torch.linspace(-0.1, 0.1, parameter.numel()).view_as(parameter))
        expected = method(images)
    method.save(path)
    header = {key: value for key, value in read_header(path).as_dict().items() if key != "class_path"}
    header["init_args"] = before | {"backbone": method.backbone_name}
    save_file(load_file(path), path, metadata={"clipbench": "1", "header": json.dumps(header)})
    loaded = Method.load(path)
    with torch.no_grad():
        assert torch.equal(loaded(images), expected)
    for argument, value in now.items():
        assert loaded.hparams[argument] == value


def test_wise_ft_of_before_version_0_2_stays_readable(make: Callable[..., Any], tmp_path: Path) -> None:
    """The header of its tuned model is one of before, too."""
    tuned, path = tmp_path / "tuned.safetensors", tmp_path / "x.safetensors"
    ramt = make(RAMT, gdr_lambda=0.5)
    ramt.save(tuned)
    wise = make(WiSEFT, start=str(tuned), alpha=0.25)
    wise.save(path)
    header = read_header(path).as_dict()
    header["init_args"]["start"]["init_args"] = PLACED | {"l": 0.5, "initial": 0.01, "backbone": ramt.backbone_name}
    save_file(load_file(path), path, metadata={"clipbench": "1", "header": json.dumps(header)})
    loaded = WiSEFT.load(path)
    assert (loaded.alpha, loaded.inner.hparams["gdr_lambda"]) == (0.25, 0.5)
    assert torch.equal(loaded.class_features(("one", "two")), wise.class_features(("one", "two")))


def test_a_damaged_header_is_told(make: Callable[..., CoOp], tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata={"clipbench": "1", "header": '{"method": "CoOp"}'})
    with pytest.raises(MethodError, match=r"header .* is damaged"):
        read_header(path)
