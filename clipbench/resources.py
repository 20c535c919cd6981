"""Where clipbench keeps its data files: cards, configs, published tables (checkout or wheel) and the user's cache."""

from __future__ import annotations

import contextlib
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
    """Where the real datasets lie unless told otherwise: `$CLIPBENCH_DATA`, else `./data`.

    Raises:
        ConfigError: that variable names the home of nobody.
    """
    return _named("CLIPBENCH_DATA") or Path("data")


def cache_dir() -> Path:
    """Where rendered images, expanded weights and hashes are cached: `$CLIPBENCH_CACHE`, else the platform's place.

    Where that place cannot be written (a home that is read-only or not there) it is a folder of one's own among the
    temporary ones, since a cache is no need. A folder that the user named is taken as it is.

    Returns:
        An absolute path; the folder need not exist.

    Raises:
        ConfigError: the folder among the temporary ones is somebody else's, or there are none; or the variable names
            the home of nobody.
    """
    if given := _named("CLIPBENCH_CACHE"):
        return Path(os.path.abspath(given))
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: nobody knows a home
        path = Path(platformdirs.user_cache_dir("clipbench"))
        if path.is_absolute():  # releases of platformdirs before that error leave `~` as it is
            path.mkdir(parents=True, exist_ok=True)
            if os.access(path, os.W_OK | os.X_OK):
                return path
    user = os.getuid() if hasattr(os, "getuid") else None  # not the name: a container's user often has none
    try:
        path = Path(tempfile.gettempdir()) / ("clipbench" if user is None else f"clipbench-{user}")
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"no folder for the cache ({error}): name one in CLIPBENCH_CACHE") from error
    if path.is_symlink() or (user is not None and path.stat().st_uid != user):
        raise ConfigError(f"'{path}' is somebody else's: name a folder for the cache in CLIPBENCH_CACHE")
    return path


def _named(variable: str) -> Path | None:
    """The folder that a variable of the environment names, if it names one."""
    given = os.environ.get(variable)
    if not given:
        return None
    try:
        return Path(given).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{variable} is '{given}', but no such home is known") from error
