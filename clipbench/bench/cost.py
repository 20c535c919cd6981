"""What a cell costs: seconds per step, peak memory, inference overhead against zero-shot."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch

from clipbench.methods.base import Method

SKIPPED_STEPS = 3  # the first steps warm caches and allocators up


class StepClock(L.Callback):
    """Seconds of every training step, from its batch in hand to its parameters moved."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        """A step begins."""
        self._start = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        """A step ended."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self._start)

    @property
    def median(self) -> float | None:
        """Median seconds of a step, without the first three where there are more; None without steps."""
        return statistics.median(self.seconds[SKIPPED_STEPS:] or self.seconds) if self.seconds else None


class PeakMemory:
    """Peak memory of a stretch of work in bytes: CUDA's maximum, on Linux the rise of the resident set, else None."""

    def __init__(self) -> None:
        self._cuda = torch.cuda.is_available()
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            self._resettable = _reset_high_water_mark()
            self._before = _status("VmRSS")

    def bytes(self) -> int | None:
        """The peak since this object was made, above the level at that time (CUDA: in all)."""
        if self._cuda:
            return torch.cuda.max_memory_allocated()
        peak = _status("VmHWM") if self._resettable else None
        return None if peak is None or self._before is None else max(0, peak - self._before)


def _reset_high_water_mark() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status(field: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


def inference_overhead(method: Method, images: torch.Tensor, limit_seconds: float = 1.0) -> float:
    """Seconds per image of the method over those of zero-shot, minus 1; median of interleaved runs.

    Both sides have their class features at hand, as in a test.

    Args:
        method: set up and trained.
        images: (B, 3, H, W) uint8.
        limit_seconds: stop repeating after about this long (at least three pairs).
    """
    names, twin = method.classnames, method.backbone.pretrained
    pixels = method.backbone.normalise(images.to(method.device))
    frozen = torch.ones(len(names), method.backbone.embed_dim, device=method.device)  # only its shape counts

    def timed(work: Any) -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def ours() -> Any:
        return method(pixels, names)

    def zero_shot() -> Any:
        return twin.logits(twin.encode_image(pixels), frozen)

    def ratio() -> float:
        return timed(ours) / timed(zero_shot)

    ratio()
    ratios: list[float] = []
    start = time.perf_counter()
    while len(ratios) < 3 or (time.perf_counter() - start < limit_seconds and len(ratios) < 15):
        ratios.append(ratio())
    return statistics.median(ratios) - 1
