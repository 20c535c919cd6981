"""Methods from outside the repository: found, told apart by their code, and used wherever ours are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from clipbench.bench import fingerprint
from clipbench.bench.plan import PlannedCell, make_plan
from clipbench.bench.recipe import load_recipe
from clipbench.bench.request import Request
from clipbench.bench.suites import load_suite

METHOD = """
from {part} import GAIN
from clipbench.methods.zero_shot import ZeroShot


class Mine(ZeroShot):
    def class_features(self, classnames):
        return GAIN * super().class_features(classnames)
"""
Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that the user works in, on the search path as `clipbench` puts it there."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("outside_"):
            del sys.modules[name]


@pytest.fixture
def write(folder: Path) -> Write:
    """Write a method, what it imports, and its recipe; returns the recipe."""

    def written(name: str = "outside_one", gain: str = "GAIN = 1.0\n", recipe: str = "mine") -> Path:
        for module in [module for module in sys.modules if module.startswith(name)]:
            del sys.modules[module]
        (folder / f"{name}.py").write_text(METHOD.format(part=f"{name}_part"))
        (folder / f"{name}_part.py").write_text(gain)
        path = folder / f"{recipe}.yaml"
        path.write_text(yaml.safe_dump({"model": {"class_path": f"{name}.Mine"}, "trainer": {"max_epochs": 0}}))
        return path

    return written


def planned(recipe: Path | str, results: Path) -> PlannedCell:
    suite = load_suite("mini")
    request = Request((load_recipe(str(recipe)),), suite, datasets=("eurosat",), seeds=(1,), shots=2)
    return make_plan(request, results).cells[0]


def test_an_edited_method_is_another_cell(write: Write, tmp_path: Path) -> None:
    first = planned(write(), tmp_path)
    assert planned(write(gain="GAIN = 1.0  # as before\n"), tmp_path).key == first.key
    edited = planned(write(gain="GAIN = 2.0\n"), tmp_path)
    assert edited.cell == first.cell
    assert edited.key != first.key
    assert first.provenance["class_path"] == "outside_one:Mine"
    assert first.provenance["code"].keys() - (fingerprint.package_changes() or {}) == {"outside_one:Mine"}


def test_two_classes_of_one_name_share_no_record(write: Write, tmp_path: Path) -> None:
    one, two = (planned(write(name), tmp_path) for name in ("outside_one", "outside_two"))
    assert one.cell == two.cell
    assert one.key != two.key


def test_a_changed_package_is_another_cell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def key(changes: dict[str, str] | None) -> str:
        monkeypatch.setattr(fingerprint, "package_changes", lambda: changes)
        return planned("zero_shot", tmp_path).key

    assert key({}) == key(None)
    assert key({"clipbench/methods/lora.py": "a"}) != key({})
    assert key({"clipbench/methods/lora.py": "a"}) != key({"clipbench/methods/lora.py": "b"})


def test_a_callback_of_ones_own_counts_and_an_installed_one_does_not(
    write: Write, folder: Path, tmp_path: Path
) -> None:
    recipe = write()
    (folder / "outside_callback.py").write_text("import lightning as L\nclass Watch(L.Callback):\n    pass\n")
    content = yaml.safe_load(recipe.read_text())
    content["trainer"]["callbacks"] = [
        {"class_path": "outside_callback.Watch"}, {"class_path": "lightning.pytorch.callbacks.LambdaCallback"},
    ]  # fmt: skip
    recipe.write_text(yaml.safe_dump(content))
    code = planned(recipe, tmp_path).provenance["code"].keys() - (fingerprint.package_changes() or {})
    assert code == {"outside_one:Mine", "outside_callback:Watch"}
