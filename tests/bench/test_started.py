"""A file that cells start from is known by its content, and refused in the plan where they may not start from it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from clipbench.backbone.clip import backbone_hash
from clipbench.bench.started import start_identity, without_learner
from clipbench.commands import main
from clipbench.data.module import FewShotDataModule
from clipbench.data.task import Task
from clipbench.errors import MethodError
from clipbench.methods.base import Method
from clipbench.methods.clipfit import CLIPFit
from clipbench.methods.coop import CoOp
from clipbench.methods.fine_tuning import FineTuning
from clipbench.methods.weights_file import Learned, read_header, read_learned
from clipbench.methods.wiseft import WiSEFT
from clipbench.recipes.recipe import load_recipe

TASK = FewShotDataModule("mini/dtd").task
COUNT = itertools.count()
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


@pytest.fixture
def of_ones_own(tmp_path: Path, learned: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with a method of one's own that nobody has imported; beside the user, with its recipe and weights."""
    module = f"learner_{next(COUNT)}"
    (tmp_path / f"{module}.py").write_text(
        "from clipbench.methods.fine_tuning import FineTuning\nclass Learner(FineTuning): pass\n"
    )
    (tmp_path / "own.yaml").write_text(f"model: {{class_path: {module}.Learner}}\ntrainer: {{max_epochs: 7}}\n")
    stored = read_learned(learned(FineTuning))
    header = dataclasses.replace(stored.header, method="Learner", class_path=f"{module}.Learner")
    Learned(header, stored.tensors, stored.start).write(tmp_path / "F.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return module


@pytest.mark.parametrize(
    ("words", "known"),
    [
        ("-m wise_ft", False),
        ("-m wise_ft --config own.yaml", True),
        ("-m wise_ft,own.yaml", True),
        ("-m own.yaml", True),
    ],
)
def test_a_learner_of_ones_own_is_known_by_the_files_that_the_user_names(
    words: str, known: bool, of_ones_own: str, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = ["bench", "--set", "model.start=F.safetensors", "--datasets", "dtd", "--seeds", "1", "--dry-run"]
    assert main([*grid, *words.split()]) == (0 if known else 1)
    said = capsys.readouterr().err
    assert ("a command finds it with its recipe as --config" in said) != known
    assert (of_ones_own in sys.modules) == known, "a header names it, nobody imports it"


def test_a_config_of_another_method_that_learned_nothing_here_is_refused(
    of_ones_own: str, learned: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for start in ([], ["--set", f"model.start={learned()}"]):
        assert main(["bench", "-m", "wise_ft", "--config", "own.yaml", "--datasets", "dtd", "--dry-run", *start]) == 2
        assert "for Learner name its recipe with --method" in capsys.readouterr().err


def test_what_vouches_for_a_learner_sets_nothing(of_ones_own: str) -> None:
    wise_ft, layer = load_recipe("wise_ft"), load_recipe("own.yaml").sections
    start = {"model": {"init_args": {"start": "F.safetensors"}}}
    assert without_learner([layer, start], wise_ft) == (start,)
    assert without_learner([layer, start], load_recipe("own.yaml")) == (layer, start)
