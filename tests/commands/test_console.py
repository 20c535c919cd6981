"""Places where a command runs: consoles without UTF-8, homes that cannot be written, folders with more than images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from PIL import Image

from clipbench.commands import main
from clipbench.commands.predict import find_images
from clipbench.errors import ClipbenchWarning, ConfigError
from clipbench.resources import cache_dir, data_root


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii"])
def test_a_console_without_utf8_shows_plain_characters(encoding: str, tmp_path: Path) -> None:
    code = "import sys; from clipbench.commands import main; main(['list', 'suites']); print('│ 5.0 ± 1 ─┐ é –')"  # noqa: RUF001
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, timeout=60,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    shown = run.stdout.decode(encoding).splitlines()[-1]
    assert shown.startswith("| 5.0 ")
    assert " -+ " in shown


def test_a_home_that_cannot_be_written_is_no_obstacle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CLIPBENCH_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/proc/none")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    path = cache_dir()
    assert path.parent == tmp_path
    assert path.stat().st_mode & 0o077 == 0
    assert cache_dir() == path
    path.rmdir()
    path.symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="is somebody else's"):
        cache_dir()


@pytest.mark.parametrize("home", [None, "read-only"])
def test_without_a_home_or_a_name_the_cache_is_among_the_temporary_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str | None
) -> None:
    """A container whose user has a number only; a home that may be read."""
    import pwd

    def nobody(*_: object) -> None:
        raise KeyError("uid not found")

    for name in ("CLIPBENCH_CACHE", "XDG_CACHE_HOME", "HOME", "USER", "LOGNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    if home:
        monkeypatch.setenv("HOME", str(tmp_path / home))
        monkeypatch.setattr(os, "access", lambda path, _: home not in str(path))
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert cache_dir() == tmp_path / f"clipbench-{os.getuid()}"
    assert not (tmp_path / "~").exists()


def test_where_nothing_can_be_written_the_variable_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CLIPBENCH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match=r"no folder for the cache .* CLIPBENCH_CACHE"):
        cache_dir()


def test_the_folders_that_the_environment_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for given, meant in (("here/x", tmp_path / "here/x"), ("~/x", tmp_path / "home/x"), ("/a/../b", Path("/b"))):
        monkeypatch.setenv("CLIPBENCH_CACHE", given)
        assert cache_dir() == meant
    for variable, function in (("CLIPBENCH_CACHE", cache_dir), ("CLIPBENCH_DATA", data_root)):
        monkeypatch.setenv(variable, "~nobody_of_this_name/x")
        with pytest.raises(ConfigError, match=f"{variable} is '~nobody_of_this_name/x', but no such home is known"):
            function()


def test_predict_passes_over_what_is_hidden(tmp_path: Path) -> None:
    (tmp_path / ".thumbs").mkdir()
    (tmp_path / "folder.jpg").mkdir()
    for name in ("a.png", "._a.png", ".thumbs/b.png", "folder.jpg/c.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    assert find_images([str(tmp_path)]) == [tmp_path / "a.png", tmp_path / "folder.jpg/c.png"]
    assert find_images([str(tmp_path / "._a.png")]) == [tmp_path / "._a.png"], "named it is meant"


def test_our_own_warnings_are_a_line_without_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # it is put back
    assert main(["data", "status", "mini"]) == 0
    shown = warnings.formatwarning(ClipbenchWarning("a \x1b[2J b"), ClipbenchWarning, "x.py", 3)
    assert shown == "clipbench: a \\x1b[2J b\n"
    assert "x.py:3: UserWarning: theirs" in warnings.formatwarning(UserWarning("theirs"), UserWarning, "x.py", 3)


def test_a_folder_that_was_removed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    here.rmdir()
    assert main(["list", "methods"]) == 2
    assert capsys.readouterr().err == "clipbench: the folder that you are in was removed: change to another one\n"


@pytest.mark.parametrize("words", [["list", "suites"], ["list", "methods", "--format", "json"]], ids=["short", "long"])
def test_a_full_disk_below_what_is_printed(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(words) == 1
    assert capsys.readouterr().err == "clipbench: the disk is full: not all could be written\n"


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"])
@pytest.mark.parametrize("rank", ["", "first", "1.5"])
def test_a_rank_that_is_no_number_is_a_sentence(
    name: str, rank: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, rank)
    assert main(["list", "methods"]) == 2
    assert f"{name} is '{rank}', and a rank is a whole number: unset it" in capsys.readouterr().err


def test_what_differs_from_the_published_stands_below_the_methods(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "methods"]) == 0
    table, _, below = capsys.readouterr().out.partition("What differs from what was published:")
    assert "on test images" in below
    assert all(f"{name}: " in below for name in ("tip_adapter", "tip_adapter_f"))
    assert "differs" not in table
    assert main(["list", "methods", "--format", "json"]) == 0
    rows = {row["recipe"]: row["differs"] for row in json.loads(capsys.readouterr().out)}
    assert "on test images" in rows["tip_adapter_f"]
    assert rows["coop"] == ""
