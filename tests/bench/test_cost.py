"""What a cell costs is measured where it was computed, and measuring makes nobody wait."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from clipbench.bench import cost, run
from clipbench.bench.cost import PeakMemory, StepClock
from clipbench.bench.environment import environment
from clipbench.commands import main


class Event:
    """Stands for a point in the queue of a CUDA device; one has to wait for it before it is read."""

    clock = 0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self.reached = False

    def record(self) -> None:
        Event.clock += 1
        self.at = Event.clock**2

    def synchronize(self) -> None:
        self.reached = True

    def elapsed_time(self, end: Event) -> float:
        assert end.reached
        return 1000.0 * (end.at - self.at)


def test_the_clock_of_steps_waits_for_a_cuda_device_only_when_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: pytest.fail("a step waits for the device"))
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cuda", 0)))
    clock = StepClock()
    assert clock.median is None
    for _ in range(5):
        clock.on_train_batch_start(trainer)
        clock.on_train_batch_end(trainer)
    assert clock.steps == 5
    assert clock.seconds == [3, 7, 11, 15, 19]
    assert clock.median == 17


def test_on_a_machine_with_a_cuda_device_what_ran_on_the_cpu_is_measured_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 7)
    assert environment(False)["device"] == "cpu"
    assert environment(True)["device"] == "a card"
    assert PeakMemory(torch.device("cuda")).bytes() == 7
    assert PeakMemory(torch.device("cpu")).bytes() != 7


def test_the_overhead_is_measured_on_the_device_and_in_the_precision_of_the_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def measured(method: Any, images: torch.Tensor) -> float:
        seen["precision"] = torch.is_autocast_enabled("cpu")
        return cost.inference_overhead(method, images, limit_seconds=0)

    monkeypatch.setattr(run, "inference_overhead", measured)
    monkeypatch.setattr(run.Method, "to", lambda self, device: seen.update(device=device) or self)
    words = ["bench", "-m", "bitfit", "--datasets", "eurosat", "--seeds", "1", "--jobs", "1", "--results"]
    settings = ["trainer.max_epochs=1", "trainer.precision=bf16-mixed", "trainer.accelerator=cpu"]
    assert main([*words, str(tmp_path), *(word for setting in settings for word in ("--set", setting))]) == 0
    assert seen == {"precision": True, "device": torch.device("cpu")}
