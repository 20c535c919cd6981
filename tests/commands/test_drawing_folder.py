"""matplotlib says nothing of its own where the home cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from clipbench.commands import main
from clipbench.commands.drawing_folder import VARIABLE, can_be_written, choose_drawing_folder

PLACES = (VARIABLE, "XDG_CONFIG_HOME", "XDG_CACHE_HOME")


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is set."""
    for name in PLACES:
        monkeypatch.setenv(name, "x")  # so that it is put back, whatever is done
        monkeypatch.delenv(name)


def test_a_home_that_can_be_written_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    choose_drawing_folder()
    assert VARIABLE not in os.environ
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("home", ["/proc/none", "/dev/null/none", "file"])
def test_another_folder_where_it_cannot(home: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    monkeypatch.setenv("HOME", home)
    choose_drawing_folder()
    folder = Path(os.environ[VARIABLE])
    assert can_be_written(folder)
    choose_drawing_folder()
    assert os.environ[VARIABLE] == str(folder), "a choice stands"
    folder.rmdir()


def test_with_no_place_at_all_nothing_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc/none")
    monkeypatch.setattr(tempfile, "tempdir", "/proc/none")
    choose_drawing_folder()
    assert VARIABLE not in os.environ


def test_what_the_user_named_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc/none")
    monkeypatch.setenv(VARIABLE, "mine")
    assert main(["--version"]) == 0
    assert os.environ[VARIABLE] == "mine"


def test_matplotlib_says_nothing_and_nothing_is_left(tmp_path: Path) -> None:
    program = "from clipbench.commands import main; main(['--version']); import matplotlib; matplotlib.get_cachedir()"
    left = {"HOME": "/proc/none", "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=left, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []
