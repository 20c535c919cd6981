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
        self._marks: list[tuple[Any, Any]] = []
        self._start: Any = None

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """A step begins."""
        self._start = _mark(trainer.strategy.root_device)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """A step ended."""
        self._marks.append((self._start, _mark(trainer.strategy.root_device)))

    @property
    def steps(self) -> int:
        """How many steps there were."""
        return len(self._marks)

    @property
    def seconds(self) -> list[float]:
        """Of each step; on a CUDA device this waits for the last of them."""
        return [_between(start, end) for start, end in self._marks]

    @property
    def median(self) -> float | None:
        """Median seconds of a step, without the first three where there are more; None without steps."""
        seconds = self.seconds
        return statistics.median(seconds[SKIPPED_STEPS:] or seconds) if seconds else None


def _mark(device: torch.device) -> Any:
    """A point in time on a device: on a CUDA device one in its queue, for which nobody waits."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _between(start: Any, end: Any) -> float:
    """Seconds from one point to another."""
    if isinstance(start, float):
        return float(end - start)
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000


class PeakMemory:
    """Peak memory of a stretch of work in bytes: CUDA's maximum, on Linux the rise of the resident set, else None.

    Args:
        device: where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
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

    Both sides have their class features at hand, as in a test, and run where the method lies.

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
        if pixels.is_cuda:
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
