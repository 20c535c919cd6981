"""Where a cell ran: versions, device, threads, code state; it stands in the record and is not part of its key."""

from __future__ import annotations

import functools
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from clipbench import __version__
from clipbench.resources import CHECKOUT, in_checkout


def environment(cuda: bool) -> dict[str, Any]:
    """Versions, device, threads and commit of this process.

    Args:
        cuda: whether the work is done on the CUDA device.
    """
    return {
        "clipbench": __version__,
        "python": platform.python_version(),
        **{
            name: _version(name) for name in ("torch", "torchvision", "lightning", "open_clip_torch", "numpy", "pillow")
        },
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "processor": platform.processor() or platform.machine(),
        "platform": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        **_code(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@functools.cache
def _code() -> dict[str, Any]:
    """Commit of the checkout and whether it has changes; None where there is no git checkout."""
    unknown = {"commit": None, "dirty": None}
    if not in_checkout():
        return unknown
    try:
        commit = _git("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return unknown


def _git(*words: str) -> str:
    run = subprocess.run(["git", *words], cwd=CHECKOUT, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603, S607
    return run.stdout.strip()
