"""The task of a data module: class names by split, known from the card alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from clipbench.data.cards import load_card
from clipbench.data.module import FewShotDataModule, Manifest
from clipbench.data.task import Task
from clipbench.data.templates import templates_for_task
from clipbench.errors import DataError, UnknownName


def test_base_to_novel_names_both_halves_and_says_which_is_trained() -> None:
    names = load_card("dtd").classnames
    task = FewShotDataModule("dtd", root="nowhere").task  # neither split file nor image is there
    assert (task.dataset, task.template, task.train) == ("dtd", None, names[:24])
    assert [(split.name, split.classnames, split.trained) for split in task.tests] == [
        ("base", names[:24], True),
        ("novel", names[24:], False),
    ]


def test_few_shot_tests_what_is_trained() -> None:
    task = FewShotDataModule("mini/dtd", protocol="few_shot").task
    assert [(split.name, split.classnames == task.train, split.trained) for split in task.tests] == [
        ("all", True, True)
    ]
    assert task.train == load_card("mini/dtd").classnames


def test_templates_follow_from_the_task_alone() -> None:
    own = load_card("mini/dtd").template
    assert own is not None
    assert templates_for_task("coop", FewShotDataModule("mini/dtd").task) == (own,)
    assert templates_for_task("coop", FewShotDataModule("dtd").task) == ("{} texture.",)
    assert templates_for_task("clipfit", Task("mine", "a scan of {}.", (), ())) == ("a scan of {}.",)


def test_own_data_bring_their_template(tmp_path: Path) -> None:
    lines = ["path,label,classname,split"]
    for label, name in enumerate("abcd"):
        for part in ("train", "test"):
            (tmp_path / f"{name}{part}.jpg").write_bytes(b"not looked at")
            lines.append(f"{name}{part}.jpg,{label},{name},{part}")
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    task = Manifest(str(tmp_path / "mine.csv"), template="a scan of {}.").task
    assert (task.dataset, task.template, task.train) == ("mine", "a scan of {}.", ("a", "b"))


def test_a_split_of_one_class_measures_nothing(tmp_path: Path) -> None:
    lines = ["path,label,classname,split"]
    for label, name in enumerate(("ant", "bee", "cat")):
        for part in ("train", "test"):
            (tmp_path / f"{name}{part}.jpg").write_bytes(b"not looked at")
            lines.append(f"{name}{part}.jpg,{label},{name},{part}")
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"'mine' has 3 classes, so split 'novel' has 1 under base_to_novel.*few_shot"):
        _ = Manifest(str(tmp_path / "mine.csv")).task
    assert Manifest(str(tmp_path / "mine.csv"), protocol="few_shot").task.train == ("ant", "bee", "cat")


def test_an_unknown_protocol_is_refused_at_once() -> None:
    with pytest.raises(UnknownName, match="did you mean 'few_shot'"):
        FewShotDataModule("mini/dtd", protocol="fewshot")


def test_a_task_needs_no_torch() -> None:
    code = "import sys, clipbench.data.task, clipbench.protocols; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
