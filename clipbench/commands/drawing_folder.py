"""A folder for matplotlib where the home of the user cannot be written: it would say two lines in every process."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

VARIABLE = "MPLCONFIGDIR"


def choose_drawing_folder() -> None:
    """Names a temporary folder in the environment, for this process and its workers, where the usual ones cannot be."""
    if VARIABLE in os.environ:
        return
    try:
        home = Path.home()
        usual = [
            Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config"),
            Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache"),
        ]
        if all(can_be_written(place) for place in usual):
            return
    except RuntimeError:  # a user without a home
        pass
    try:
        folder = tempfile.mkdtemp(prefix="clipbench-drawing-")
    except OSError:
        return  # no place for anything; what needs one says so
    os.environ[VARIABLE] = folder
    atexit.register(_give_back, folder)


def can_be_written(place: Path) -> bool:
    """Whether a folder takes files, or could be made; nothing is left there."""
    try:
        there = next(folder for folder in (place, *place.parents) if folder.exists())
        with tempfile.TemporaryFile(dir=there):
            return True
    except OSError:
        return False


def _give_back(folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.environ.pop(VARIABLE, None)
