"""Where clipbench keeps its data files: cards, configs, published tables (checkout or wheel) and the user's cache."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

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
    """Where rendered images, expanded weights and hashes are cached: `$CLIPBENCH_CACHE`, else the platform's place."""
    given = os.environ.get("CLIPBENCH_CACHE")
    return Path(given).expanduser() if given else Path(platformdirs.user_cache_dir("clipbench"))
