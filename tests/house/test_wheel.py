"""The wheel holds everything that clipbench reads, and works from an empty folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLACES = {"datasets": "datasets", "configs": "configs", "results/published": "published"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="the build backend is not installed (extra dev)")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content as an installer lays it out; dependencies come from the environment of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def call(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(installed), "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    environment.pop("CLIPBENCH_DATA", None)
    command = [sys.executable, "-m", "clipbench", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_every_data_file_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    wanted = {
        f"clipbench/{inside}/{path.relative_to(ROOT / place).as_posix()}"
        for place, inside in PLACES.items()
        for path in (ROOT / place).rglob("*")
        if path.is_file()
    }
    wanted |= {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "clipbench").rglob("*")
        if path.is_file() and path.suffix in {".py", ".json", ".safetensors", ".tex", ".jinja", ".j2", ".typed"}
    }
    assert "clipbench/py.typed" in wanted
    assert wanted - held == set()
    assert any(name.startswith("clipbench/datasets/mini/") for name in held)


def test_nothing_else_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        size = sum(entry.file_size for entry in archive.infolist())
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"clipbench"}
    assert not [name for name in names if name.endswith((".pyc", ".ckpt", ".pt")) or "runs/" in name]
    assert size < 16_000_000


def test_metadata_names_licence_and_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        text = {name.rpartition("/")[2]: name for name in archive.namelist() if ".dist-info/" in name}
        entry_points = archive.read(text["entry_points.txt"]).decode()
        licence = archive.read(text["LICENSE"]).decode()
        about = archive.read(text["METADATA"]).decode()
    assert "clipbench = clipbench.commands:main" in entry_points
    assert "Apache License" in licence
    assert "License-Expression: Apache-2.0" in about


def test_an_installed_wheel_reads_its_own_files(installed: Path, tmp_path: Path) -> None:
    code = (
        "import clipbench.resources as r; from clipbench.data.cards import load_card;"
        "print(r.datasets_dir()); print(r.configs_dir()); print(r.published_dir()); print(r.runs_dir());"
        "print(load_card('mini/eurosat').path)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    inside = installed / "clipbench"
    expected = [inside / "datasets", inside / "configs", inside / "published", tmp_path / "results/runs"]
    assert done.stdout.splitlines() == [*map(str, expected), str(inside / "datasets/mini/eurosat.yaml")]


needs_cli = pytest.mark.skipif(
    not (ROOT / "clipbench/commands/__init__.py").exists(), reason="needs clipbench/commands/__init__.py"
)


@needs_cli
@pytest.mark.parametrize("kind", ["methods", "datasets", "suites", "backbones"])
def test_list_from_an_empty_folder(installed: Path, tmp_path: Path, kind: str) -> None:
    done = call(installed, tmp_path, "list", kind)
    assert done.returncode == 0, done.stderr
    expected = {"methods": "clipfit", "datasets": "mini/eurosat", "suites": "clip11", "backbones": "mini"}
    assert expected[kind] in done.stdout
    assert list(tmp_path.iterdir()) == []


@needs_cli
def test_draw_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    done = call(installed, tmp_path, "data", "draw", "mini/eurosat", "--shots", "2", "--seed", "1", "--format", "json")
    assert done.returncode == 0, done.stderr
    drawn = json.loads(done.stdout)
    assert (len(drawn["train"]), len(drawn["val"])) == (20, 20)
    assert list(tmp_path.iterdir()) == []


@needs_cli
@pytest.mark.slow
def test_bench_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    arguments = ["--method", "clipfit", "--suite", "mini", "--datasets", "eurosat", "--seeds", "1", "--shots", "1"]
    done = call(installed, tmp_path, "bench", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = tmp_path / "results/runs/mini/base_to_novel"
    assert (runs / "leaderboard.csv").read_text().startswith("suite,backbone,protocol")
    assert len(list((runs / "records").glob("*.json"))) == 1
    assert len(list((runs / "weights").glob("*.safetensors"))) == 1
