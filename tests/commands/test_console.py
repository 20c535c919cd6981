"""Places where a command runs: consoles without UTF-8, homes that cannot be written, folders with more than images."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from clipbench.commands.predict import find_images
from clipbench.errors import ConfigError
from clipbench.resources import cache_dir


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


def test_predict_passes_over_what_is_hidden(tmp_path: Path) -> None:
    (tmp_path / ".thumbs").mkdir()
    (tmp_path / "folder.jpg").mkdir()
    for name in ("a.png", "._a.png", ".thumbs/b.png", "folder.jpg/c.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    assert find_images([str(tmp_path)]) == [tmp_path / "a.png", tmp_path / "folder.jpg/c.png"]
    assert find_images([str(tmp_path / "._a.png")]) == [tmp_path / "._a.png"], "named it is meant"
