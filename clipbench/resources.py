"""Where clipbench keeps its data files: cards, configs, published tables (checkout or wheel) and the user's cache."""

from __future__ import annotations

import contextlib
import getpass
import os
import tempfile
from pathlib import Path

import platformdirs

from clipbench.errors import ConfigError

PACKAGE = Path(__file__).resolve().parent
CHECKOUT = PACKAGE.parent


def _shipped(in_wheel: str, in_checkout: str) -> Path:
    """The folder inside the installed package, else the one of the checkout."""
    inside = PACKAGE / in_wheel
    return inside if inside.is_dir() else CHECKOUT / in_checkout


def datasets_dir() -> Path:
    """The folder of the cards."""
    return _shipped("datasets", "datasets")


def configs_dir() -> Path:
    """The folder of recipes, suites, studies and template sets."""
    return _shipped("configs", "configs")


def published_dir() -> Path:
    """The folder of the papers' tables."""
    return _shipped("published", "results/published")


def in_checkout() -> bool:
    """Whether this is a checkout (results go into it) rather than an installed wheel."""
    return not (PACKAGE / "datasets").is_dir()


def runs_dir() -> Path:
    """Where runs go unless told otherwise: `results/runs` of the checkout, else of the working directory."""
    return (CHECKOUT if in_checkout() else Path.cwd()) / "results" / "runs"


def data_root() -> Path:
    """Where the real datasets lie unless told otherwise: `$CLIPBENCH_DATA`, else `./data`."""
    return Path(os.environ.get("CLIPBENCH_DATA", "data")).expanduser()


def cache_dir() -> Path:
    """Where rendered images, expanded weights and hashes are cached: `$CLIPBENCH_CACHE`, else the platform's place.

    Where that place cannot be made (a home that is read-only or not there) it is a folder of one's own among the
    temporary ones, since a cache is no need.

    Raises:
        ConfigError: that folder is somebody else's.
    """
    given = os.environ.get("CLIPBENCH_CACHE")
    if given:
        return Path(given).expanduser()
    path = Path(platformdirs.user_cache_dir("clipbench"))
    with contextlib.suppress(OSError):
        path.mkdir(parents=True, exist_ok=True)
        return path
    path = Path(tempfile.gettempdir()) / f"clipbench-{getpass.getuser()}"
    path.mkdir(mode=0o700, exist_ok=True)
    if path.is_symlink() or path.stat().st_uid != os.getuid():
        raise ConfigError(f"'{path}' is somebody else's: name a folder for the cache in CLIPBENCH_CACHE")
    return path
