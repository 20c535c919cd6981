"""What a fit says about its time: before it begins, and after its first steps where these took another time."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest

from clipbench.bench import expected_time
from clipbench.bench.expected_time import ExpectedTime, batches, duration, length_line, time_lines
from clipbench.bench.progress import EpochLines
from clipbench.bench.trial import Trial


def trainer(**values: Any) -> Any:
    about = {"max_epochs": 50, "max_steps": -1, "num_training_batches": 4, "accumulate_grad_batches": 1}
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(total_batch_idx=-1))
    strategy = SimpleNamespace(root_device=SimpleNamespace(type="cpu"))
    return SimpleNamespace(**{**about, **values}, fit_loop=loop, strategy=strategy, fast_dev_run=False)


METHOD: Any = SimpleNamespace(trainable={"a": 1}, derived=False, has_optimizer=True)


def said(
    one: Any,
    seconds: float,
    monkeypatch: pytest.MonkeyPatch,
    steps: int = 40,
    begun: int = 0,
    tried: float | None = None,
    validation: float = 0.0,
) -> list[str]:
    """What is said in a fit whose first step takes a minute and every other so many seconds.

    Args:
        one: trainer.
        seconds: of a step.
        monkeypatch: holds the clock.
        steps: that are done.
        begun: that were done before.
        tried: seconds of a step in a trial; None: there was none.
        validation: seconds of one, after every second step.
    """
    lines: list[str] = []
    clock = 0.0
    monkeypatch.setattr(expected_time.time, "perf_counter", lambda: clock)
    monkeypatch.setattr(expected_time, "line", lambda trial, left, trainer: f"{left} of {trial.step}")
    trial = None if tried is None else Trial(tried, 0, 0, 0)
    callback = ExpectedTime(lines.append, lambda method, trainer: trial)
    one.fit_loop.epoch_loop.total_batch_idx = begun - 1
    callback.on_train_start(one, METHOD)
    for step in range(steps):
        clock += seconds if step else 60.0
        one.fit_loop.epoch_loop.total_batch_idx = begun + step
        callback.on_train_batch_end(one)
        if step % 2:
            callback.on_validation_start(one, METHOD)
            clock += validation
            callback.on_validation_end(one, METHOD)
    return lines


@pytest.mark.parametrize(
    ("seconds", "line"),
    [
        (0.01, "the fit takes about 2 s more: 189 steps of 0.01 s"),
        (0.6, "the fit takes about 2 min more: 197 steps of 0.6 s"),
        (100.0, "the fit takes about 5.5 h more: 197 steps of 1e+02 s"),
    ],
)
def test_it_is_said_once_from_the_steps_after_the_first(
    seconds: float, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said(trainer(), seconds, monkeypatch) == [line]


@pytest.mark.parametrize(("tried", "said_again"), [(0.5, False), (0.65, False), (0.3, True), (1.0, True)])
def test_what_was_tried_is_mended_where_the_steps_differ(
    tried: float, said_again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = said(trainer(), 0.5, monkeypatch, tried=tried)
    again = ["the fit takes about 98 s more: 196 steps of 0.5 s"] if said_again else []
    assert lines == [f"200 of {tried}", *again]


def test_a_wrong_number_that_is_small_anyway_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(said(trainer(), 0.01, monkeypatch, tried=0.03)) == 1


def test_validations_are_no_part_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(said(trainer(), 0.5, monkeypatch, tried=0.5, validation=30.0)) == 1


def test_a_fit_that_was_resumed_has_less_left(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(trainer(), 0.01, monkeypatch, begun=100) == ["the fit takes about 1 s more: 89 steps of 0.01 s"]


def test_nothing_is_said_of_a_fit_that_is_over_soon_or_has_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(trainer(), 0.01, monkeypatch, steps=8) == []
    assert said(trainer(max_epochs=-1), 0.01, monkeypatch) == []
    assert said(trainer(max_epochs=1, num_training_batches=11), 0.01, monkeypatch, steps=11) == []


def test_steps_are_counted_as_the_trainer_counts_them() -> None:
    assert batches(trainer()) == 200
    assert batches(trainer(max_steps=30, accumulate_grad_batches=2)) == 60
    assert batches(trainer(max_steps=1000)) == 200
    assert batches(trainer(max_epochs=None, max_steps=7)) == 7
    assert batches(trainer(max_epochs=-1)) == math.inf


def test_times_are_said_as_people_say_them() -> None:
    assert [duration(seconds) for seconds in (0.0, 1.6, 98, 150, 5000, 7200)] == [
        "1 s", "2 s", "98 s", "2 min", "83 min", "2.0 h",
    ]  # fmt: skip


def test_with_no_progress_bar_lines_take_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    shown: list[str] = []
    bar = SimpleNamespace(print=lambda line, file: shown.append(line))
    (with_bar,) = time_lines(SimpleNamespace(progress_bar_callback=bar), {})
    with_bar.say("x")
    assert shown == ["clipbench: x"]
    alone, lines = time_lines(SimpleNamespace(progress_bar_callback=None), {})
    assert isinstance(lines, EpochLines)
    alone.say("y")
    assert capsys.readouterr().err == "clipbench: y\n"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "trainer.max_epochs is not given: the fit takes Lightning's 1,000 epochs"),
        ({"max_epochs": -1}, "the fit has no end"),
        ({"max_epochs": 3}, ""),
        ({"max_steps": 3}, ""),
        ({"max_epochs": -1, "max_steps": 3}, ""),
        ({"max_time": "00:00:00:02"}, ""),
        ({"fast_dev_run": True}, ""),
    ],
)
def test_a_length_that_nobody_chose_is_said(settings: dict[str, Any], said: str) -> None:
    fit = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", **settings)
    assert said in length_line(fit, settings.get("max_epochs"))
    assert bool(length_line(fit, settings.get("max_epochs"))) == bool(said)
