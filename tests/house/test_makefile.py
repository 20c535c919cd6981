"""`make` passes on what the user set and nothing else, and says in one sentence what is missing."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", *words],
        cwd=folder,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A checkout without an environment, in a folder with a blank in its name."""
    folder = tmp_path / "a checkout"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
        os.utime(folder / name, (0, 0))  # older than anything that a test makes, whatever the clock's step
    return folder


@pytest.fixture
def built(bare: Path) -> Path:
    """A checkout whose environment stands, with commands that only say how they were called."""
    script(bare / ".venv/bin/clipbench", 'printf "[%s]" "$@"; echo; test "$1" != list || exit 0; exit ${FAIL:-0}')
    script(bare / ".venv/bin/python", 'printf "[%s]" "$@"; echo " threads=$OMP_NUM_THREADS"')
    script(bare / ".venv/bin/uv", 'printf uv; printf "[%s]" "$@"; echo')
    (bare / ".venv/.installed").touch()
    return bare


def test_only_what_was_set_becomes_a_flag(built: Path) -> None:
    done = make(built, "bench", "METHOD=clipfit")
    assert (done.returncode, done.stdout) == (0, "[bench][--method][clipfit]\n")


def test_every_value_becomes_the_flag_of_its_name(built: Path) -> None:
    given = [
        "SUITE=mini",
        "DATASETS=dtd eurosat",
        "SEEDS=1,2",
        "SHOTS=4",
        "PROTOCOL=few_shot",
        "BACKBONE=mini?image_size=32",
        "JOBS=2",
    ]
    done = make(built, "bench", "METHOD=coop", *given, "ARGS=--dry-run --model.lr 0.1")
    expected = "[bench][--method][coop]" + "".join(
        f"[--{name.lower()}][{value}]" for name, value in (pair.split("=", 1) for pair in given)
    )
    assert done.stdout == expected + "[--dry-run][--model.lr][0.1]\n"


def test_bench_without_a_method_shows_the_choice_and_fails(built: Path) -> None:
    done = make(built, "bench")
    assert done.returncode != 0
    assert done.stdout == "[list][methods]\n"
    assert "make bench METHOD=<one of these>" in done.stderr


def test_a_failing_command_fails_make_and_its_status_is_shown(built: Path) -> None:
    done = make(built, "bench", "METHOD=clipfit", "FAIL=1")  # make exports what stands on its command line
    assert done.returncode != 0
    assert "Error 1" in done.stderr


def test_an_unknown_study_lists_the_known_ones(built: Path) -> None:
    (built / "configs/studies").mkdir(parents=True)
    (built / "configs/studies/norms.yaml").touch()
    done = make(built, "study", "STUDY=nroms")
    assert done.returncode != 0
    assert "norms" in done.stderr
    assert make(built, "study", "STUDY=norms").stdout == "[study][norms]\n"


def test_the_tests_run_with_one_thread_a_process(built: Path) -> None:
    done = make(built, "test", "ARGS=tests/house")
    assert "[pytest]" in done.stdout
    assert "[tests/house] threads=1" in done.stdout


def test_pre_commit_runs_what_check_runs(built: Path) -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook["entry"].removeprefix("env ") for repo in config["repos"] for hook in repo["hooks"]]
    assert hooks == make(built, "-n", "check").stdout.splitlines()


def test_golden_runs_every_script_that_makes_golden_values_or_that_of_one_recipe(built: Path) -> None:
    scripts = ("tests/backbone/make_golden.py", "tests/methods/make_golden.py", "somewhere/mini/golden.py")
    for path in scripts:
        script(built / path, "")
    said = make(built, "golden").stdout
    for path in scripts:
        assert f"[-m][{path.removesuffix('.py').replace('/', '.')}] threads=1\n" in said
    alone = make(built, "golden", "RECIPE=clipfit").stdout
    assert alone == "tests.methods.make_golden\n[-m][tests.methods.make_golden][clipfit] threads=1\n"


def test_a_standing_environment_is_left_alone_until_the_lock_changes(built: Path) -> None:
    assert "uv" not in make(built, "install").stdout
    os.utime(built / ".venv/.installed", (1, 1))
    (built / "requirements.lock").touch()
    done = make(built, "install")
    assert "uv[pip][install][--python][.venv/bin/python][-r][requirements.lock]\n" in done.stdout
    assert "uv" not in make(built, "install").stdout


def test_what_a_bench_imports_is_compiled_whatever_the_shell_says(built: Path) -> None:
    script(built / ".venv/bin/python", 'printf "[%s]" "$@"; echo " unset=${PYTHONDONTWRITEBYTECODE-yes}"')
    (built / ".venv/.installed").unlink()
    compiled = re.search(
        r"\[-c\]\[import (.+)\] unset=yes\n", make(built, "install", "PYTHONDONTWRITEBYTECODE=1").stdout
    )
    assert compiled is not None
    names = [name.strip() for name in compiled[1].split(",")]
    assert "clipbench.bench.grid" in names
    assert [name for name in names if importlib.util.find_spec(name) is None] == []


def test_clean_keeps_runs_unless_told_otherwise(built: Path) -> None:
    record = built / "results/runs/mini/record.json"
    record.parent.mkdir(parents=True)
    record.touch()
    (built / "clipbench/__pycache__").mkdir(parents=True)
    assert make(built, "clean").returncode == 0
    assert not (built / ".venv").exists()
    assert not (built / "clipbench/__pycache__").exists()
    assert record.exists()
    make(built, "clean", "RUNS=1")
    assert not record.exists()


def test_help_names_every_target(built: Path) -> None:
    shown = make(built, "help").stdout
    phony = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith(".PHONY:"))
    for target in phony.split()[1:]:
        assert f"make {target} " in shown


OLD = 'case "$2" in *version_info*) exit 1;; esac'
NO_VENV = 'case "$2" in *ensurepip*) exit 1;; esac'
OFFLINE = """test "$1$2" = -mvenv || exit 0
mkdir -p .venv/bin
printf '#!/bin/sh\\necho "no route to host" >&2; exit 1\\n' > .venv/bin/python
chmod +x .venv/bin/python"""


@pytest.mark.parametrize(
    ("python", "sentence"),
    [
        (None, "is missing: install Python 3.10 or newer"),
        (OLD, "is too old: Python 3.10 or newer is needed"),
        (NO_VENV, "has no module venv with pip"),
        (OFFLINE, "uv could not be installed into .venv"),
    ],
    ids=["no python", "old python", "no venv", "no network"],
)
def test_one_sentence_says_what_is_missing(bare: Path, python: str | None, sentence: str) -> None:
    path = bare / "some python" if python is None else script(bare / "some python", python)
    done = make(bare, "bench", "METHOD=clipfit", f"PYTHON={path}")
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("clipbench: ")]
    assert len(said) == 1
    assert sentence in said[0]
    assert not (bare / ".venv/.installed").exists()


def test_a_failed_installation_is_said_and_tried_again(built: Path) -> None:
    script(built / ".venv/bin/uv", 'echo "tcp connect error" >&2; exit 2')
    (built / ".venv/.installed").unlink()
    for _ in range(2):
        done = make(built, "install")
        assert done.returncode != 0
        assert "requirements.lock could not be installed" in done.stderr
