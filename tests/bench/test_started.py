"""A file that cells start from is known by its content, and refused in the plan where they may not start from it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from clipbench.backbone.clip import backbone_hash
from clipbench.bench.started import start_identity
from clipbench.commands import main
from clipbench.data.module import FewShotDataModule
from clipbench.data.task import Task
from clipbench.errors import MethodError
from clipbench.methods.base import Method
from clipbench.methods.clipfit import CLIPFit
from clipbench.methods.coop import CoOp
from clipbench.methods.weights_file import read_header
from clipbench.methods.wiseft import WiSEFT

TASK = FewShotDataModule("mini/dtd").task
OTHER = FewShotDataModule("mini/eurosat").task


@pytest.fixture
def learned(tmp_path: Path) -> Callable[..., Path]:
    """Write what a method would have learned on a task."""

    def write(kind: type[Method] = CLIPFit, task: Task = TASK, name: str = "x", **settings: Any) -> Path:
        method = kind(backbone="mini", **settings)
        method.setup(task=task)
        method.save(tmp_path / f"{name}.safetensors")
        return tmp_path / f"{name}.safetensors"

    return write


def identity(path: Path, child: type[Method] = CLIPFit, known: str | None = None, task: Task = TASK) -> Any:
    return start_identity(path, child, "mini", known or backbone_hash("mini"), task)


def test_the_content_is_the_key(learned: Callable[..., Path], tmp_path: Path) -> None:
    first = identity(learned())
    assert identity(learned(name="y")) == first
    assert identity(learned(lr=0.5)) != first
    assert identity(learned(CLIPFit, OTHER)) != first


def test_another_backbone_is_refused(learned: Callable[..., Path]) -> None:
    with pytest.raises(MethodError, match=r"x\.safetensors': learned on backbone 'mini'"):
        identity(learned(), known="0" * 64)


@pytest.mark.parametrize("stages", [1, 2])
def test_classes_that_count_as_new_were_not_trained_on(learned: Callable[..., Path], stages: int) -> None:
    """Nor in what it began from."""
    every = FewShotDataModule("mini/dtd", protocol="few_shot").task
    path = learned(task=every)
    if stages == 2:
        method = CLIPFit(backbone="mini", start=str(path))
        few = Task("dtd", TASK.template, TASK.train, ())
        method.setup(task=few)
        path = path.with_name("second.safetensors")
        method.save(path)
        assert read_header(path).also_trained == sorted(set(every.train) - set(TASK.train))
    with pytest.raises(MethodError, match=r"6 of the 6 classes of split 'novel' of 'dtd' were trained on"):
        identity(path)
    assert identity(path, task=OTHER), "other classes are new"
    assert identity(path, task=every)


def test_what_is_not_in_the_backbone_s_tensors_is_refused(learned: Callable[..., Path]) -> None:
    path = learned(CoOp)
    with pytest.raises(MethodError, match=r"x\.safetensors': start: what was learned there is not in the backbone"):
        identity(path)
    assert identity(path, WiSEFT), "it takes the method as a whole"


def test_a_bench_never_imports_what_a_file_names(
    learned: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("evilmod.py").write_text("open('mark', 'w')\n")
    path = learned()
    header = read_header(path).as_dict() | {"method": "X", "class_path": "evilmod.X"}
    save_file(load_file(path), path, metadata={"clipbench": "1", "header": json.dumps(header)})
    Path("a.png").write_bytes(b"no image")
    for words in (
        ["bench", "-m", "clipfit", "--datasets", "dtd", "--seeds", "1", "--dry-run", "--set", f"model.start={path}"],
        [
            "fit",
            "--config",
            "clipfit",
            "--data.dataset",
            "mini/dtd",
            "--model.start",
            str(path),
            "--trainer.logger=false",
        ],
        ["test", "--weights", str(path), "--data.dataset", "mini/dtd"],
        ["test", "--config", "clipfit", "--weights", str(path), "--data.dataset", "mini/dtd"],
        ["fit", "--config", "clipfit", "--weights", str(path), "--data.dataset", "mini/dtd", "--trainer.logger=false"],
    ):
        assert main(words) in (1, 2)
        said = capsys.readouterr().err
        assert "learned by" in said
        assert "Traceback" not in said
    assert not Path("mark").exists()
    assert "evilmod" not in sys.modules
