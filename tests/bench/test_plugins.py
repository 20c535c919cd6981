"""Methods from outside the repository: found, told apart by their code, and used wherever ours are."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import yaml
from PIL import Image

from clipbench import methods
from clipbench.bench import fingerprint
from clipbench.bench.plan import PlannedCell, make_plan
from clipbench.commands import main
from clipbench.errors import ConfigError
from clipbench.methods import method_class
from clipbench.recipes import recipe
from clipbench.recipes.recipe import load_recipe
from clipbench.recipes.request import Request
from clipbench.recipes.suites import load_suite
from clipbench.resources import CHECKOUT

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

    def written(name: str = "outside_one", gain: str = "GAIN = 1.0\n") -> Path:
        for module in [module for module in sys.modules if module.startswith(name)]:
            del sys.modules[module]
        (folder / f"{name}.py").write_text(METHOD.format(part=f"{name}_part"))
        (folder / f"{name}_part.py").write_text(gain)
        path = folder / "mine.yaml"
        path.write_text(yaml.safe_dump({"model": {"class_path": f"{name}.Mine"}, "trainer": {"max_epochs": 0}}))
        return path

    return written


def planned(name: Path | str, results: Path) -> PlannedCell:
    suite = load_suite("mini")
    request = Request((load_recipe(str(name)),), suite, datasets=("eurosat",), seeds=(1,), shots=2)
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
    path = write()
    (folder / "outside_callback.py").write_text("import lightning as L\nclass Watch(L.Callback):\n    pass\n")
    content = yaml.safe_load(path.read_text())
    content["trainer"]["callbacks"] = [
        {"class_path": "outside_callback.Watch"}, {"class_path": "lightning.pytorch.callbacks.LambdaCallback"},
    ]  # fmt: skip
    path.write_text(yaml.safe_dump(content))
    code = planned(path, tmp_path).provenance["code"].keys() - (fingerprint.package_changes() or {})
    assert code == {"outside_one:Mine", "outside_callback:Watch"}


STUDY = {
    "name": "mine", "title": "Mine", "question": "Does it help?", "suite": "mini", "datasets": ["eurosat"],
    "seeds": [1], "shots": 2, "minutes": 1, "default": {"label": "mine_plain", "recipe": "mine.yaml"},
    "axes": {"templates": {"at": "coop"}}, "references": ["zero_shot"], "figures": [{"kind": "axes"}],
    "variants": [
        {"label": "mine_single", "axis": "templates", "value": "single", "set": {"model.template_set": "single"}}
    ],
}  # fmt: skip


def test_the_installed_command_finds_a_method_beside_the_user(write: Write, folder: Path) -> None:
    write()
    command = Path(sys.executable).with_name("clipbench")
    run = subprocess.run(
        [command, "show", "params", "--config", "mine.yaml"], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("mine on mini: 0 trained")


def test_a_recipe_beside_the_user_works_in_bench_fit_and_study(
    write: Write, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write()
    grid = ["--datasets", "eurosat", "--seeds", "1", "--shots", "2"]
    bench = ["bench", "--method", "mine.yaml", *grid, "--results", "runs", "--jobs", "1"]
    assert main(bench) == 0
    assert "[1/1] mine eurosat seed 1" in capsys.readouterr().out
    assert main([*bench, "--dry-run"]) == 0
    assert "1 done already" in capsys.readouterr().out
    assert main(["fit", "--config", "mine.yaml", "--print_config"]) == 0
    assert "class_path: outside_one.Mine" in capsys.readouterr().out
    assert main(["fit", "--model", "outside_one.Mine", "--print_config"]) == 0
    assert "class_path: outside_one.Mine" in capsys.readouterr().out
    (folder / "study").mkdir()
    (folder / "mine.yaml").rename(folder / "study/mine.yaml")  # a study looks for recipes beside itself
    (folder / "study/study.yaml").write_text(yaml.safe_dump(STUDY))
    assert main(["study", "study/study.yaml", "--dry-run", "--results", "runs"]) == 0
    printed = capsys.readouterr().out
    assert "mine_plain on eurosat" in printed
    assert "mine_single on eurosat" in printed


@pytest.mark.slow
def test_the_example_of_the_docs(folder: Path) -> None:
    """As a user types it: list, bench from a recipe that starts from it, predict, the conformance suite."""
    page = (CHECKOUT / "docs/own_methods.md").read_text()
    blocks = dict(re.findall(r"```(python|yaml)\n(.*?)```", page, re.S)[::-1])  # the first of each kind
    (test,) = re.findall(r"```python\n(import pytest.*?)```", page, re.S)
    (folder / "scale_bias.py").write_text(blocks["python"])
    (folder / "scale_bias.yaml").write_text(blocks["yaml"].replace("max_epochs: 20", "max_epochs: 1"))
    (folder / "test_scale_bias.py").write_text(test)
    tuned = {"model": {"class_path": "WiSEFT", "init_args": {"start": "scale_bias.yaml", "alpha": 0.5}}}
    (folder / "wise.yaml").write_text(yaml.safe_dump(tuned | {"trainer": {"max_epochs": 0}}))
    Image.new("RGB", (40, 30)).save(folder / "photo.png")

    def call(*words: str) -> str:
        command = [sys.executable, "-m", *words]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout

    assert re.search(r"scale_bias\.yaml +ScaleBias .* this folder", call("clipbench", "list", "methods"))
    grid = ["--datasets", "eurosat", "--seeds", "1,2", "--shots", "2", "--results", "runs", "--jobs", "2"]
    for name in ("scale_bias.yaml", "wise.yaml"):  # the second one's workers have not run what it starts from
        call("clipbench", "bench", "--method", name, *grid)
    weights = [
        *(folder / "runs").rglob("scale_bias-*-seed1-*.safetensors"),
        *(folder / "runs").rglob("wise-*-seed1-*.safetensors"),
    ]
    assert len(weights) == 2
    for file in weights:
        words = ["predict", "photo.png", "--weights", str(file), "--config", "scale_bias.yaml"]
        assert "photo.png" in call("clipbench", *words)
    checks = "saved_and_loaded or stays_as_it_was or count_is"
    assert "3 passed" in call("pytest", "-q", "-k", checks, "-p", "no:cacheprovider", "test_scale_bias.py")


def test_a_class_of_a_name_that_is_ours_is_ones_own(folder: Path, tmp_path: Path) -> None:
    code = "from clipbench.methods import zero_shot\nclass ZeroShot(zero_shot.ZeroShot):\n    pass\n"
    (folder / "outside_twin.py").write_text(code)
    content = {"model": {"class_path": "outside_twin.ZeroShot"}, "trainer": {"max_epochs": 0}}
    (folder / "twin.yaml").write_text(yaml.safe_dump(content))
    assert planned(folder / "twin.yaml", tmp_path).provenance["class_path"] == "outside_twin:ZeroShot"
    assert planned("zero_shot", tmp_path).provenance["class_path"] == "clipbench.methods.zero_shot:ZeroShot"


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("outside_none.Mine", None, "there is no module 'outside_none'"),
        ("outside_one.none.Mine", "", "there is no module 'outside_one.none'"),
        ("outside_one.Mien", "from clipbench.methods.zero_shot import ZeroShot as Mine\n", "did you mean 'Mine'"),
        ("outside_one.Mine", "Mine = 3\n", "'outside_one.Mine' is not a method"),
        (
            "outside_one.Mine",
            "\nimport outside_help\n",
            "fails at .*outside_one.py:2: .*No module named 'outside_help'",
        ),
        ("outside_one.Mine", "from math import nothing\n", "fails at .*outside_one.py:1: ImportError: .*'nothing'"),
        ("outside_one.Mine", "x = 1 / 0\n", "fails at .*outside_one.py:1: ZeroDivisionError"),
        ("outside_one.Mine", "x = (\n", "fails: SyntaxError: .*outside_one.py, line 1"),
    ],
)
def test_what_is_wrong_with_a_method_is_said_in_one_sentence(
    folder: Path, name: str, code: str | None, said: str
) -> None:
    if code is not None:
        (folder / "outside_one.py").write_text(code)
    importlib.invalidate_caches()
    with pytest.raises(ConfigError, match=said) as error:
        method_class(name)
    assert "\n" not in str(error.value)


def test_entry_points_are_read_once(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    asked: list[str] = []

    def points(group: str) -> list[EntryPoint]:
        asked.append(group)
        return [EntryPoint("Plugged", "outside_one:Mine", group)]

    (folder / "outside_one.py").write_text("from clipbench.methods.zero_shot import ZeroShot as Mine\n")
    monkeypatch.setattr(methods, "entry_points", points)
    methods._plugins.cache_clear()
    try:
        assert method_class("Plugged") is method_class("ZeroShot")
        assert asked == ["clipbench.methods"]
    finally:
        methods._plugins.cache_clear()


@pytest.fixture
def plug_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Install a package that ships recipes of these names: its metadata lie on the search path as an installer's do."""

    def install(*names: str, ships: str = "outside_pack.recipes") -> None:
        recipes = folder / "outside_pack/recipes"
        recipes.mkdir(parents=True)
        (folder / "outside_pack/__init__.py").write_text("")
        for name in names:
            content = {"model": {"class_path": "ZeroShot"}, "trainer": {"max_epochs": 0}}
            (recipes / f"{name}.yaml").write_text(yaml.safe_dump(content))
        info = folder / "outside_pack-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-pack\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[clipbench.recipes]\nany = {ships}\n")
        importlib.invalidate_caches()

    recipe._plugin_recipes.cache_clear()
    yield install
    recipe._plugin_recipes.cache_clear()


def test_a_plug_in_ships_recipes(
    plug_in: Callable[..., None], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plug_in("plugged", "plugged_too")
    assert recipe.known_recipes().keys() >= {"plugged", "plugged_too", "clipfit"}
    assert main(["list", "methods", "--format", "json"]) == 0
    rows = {row["recipe"]: row["from"] for row in json.loads(capsys.readouterr().out)}
    assert (rows["plugged"], rows["clipfit"]) == ("outside-pack", "clipbench")
    assert planned("plugged", tmp_path).cell.recipe == "plugged"
    study = STUDY | {"references": ["plugged"], "default": {"label": "mine_plain", "recipe": "plugged_too"}}
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    assert main(["study", "study.yaml", "--dry-run", "--results", "runs"]) == 0
    assert "plugged on eurosat" in capsys.readouterr().out


def test_a_recipe_of_a_plug_in_takes_no_name_of_ours(
    plug_in: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    plug_in("clipfit")
    assert main(["list", "methods"]) == 2
    assert "plug-in 'outside-pack' calls its recipe 'clipfit', a name that is taken" in capsys.readouterr().err


@pytest.mark.parametrize("ships", ["outside_pack.none", "outside_none.recipes"])
def test_a_plug_in_without_its_folder_is_named(
    plug_in: Callable[..., None], ships: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plug_in("plugged", ships=ships)
    assert main(["list", "methods"]) == 2
    said = capsys.readouterr().err
    assert "'outside-pack'" in said
    assert ships in said
