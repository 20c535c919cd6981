"""A wish to stop is never lost."""

from __future__ import annotations

import signal
from pathlib import Path

import lightning as L
import pytest

from clipbench.bench.stop import StopSignal, StopWhenAsked
from clipbench.testing.subject import Subject


def test_a_signal_is_an_exception_and_is_remembered() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignal() as stop, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert stop.asked
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_exception_that_got_lost_is_raised_at_the_next_batch(tmp_path: Path) -> None:
    class Swallow(L.Callback):
        """As a destructor, or a callback of C, does."""

        def on_train_batch_start(self, *_: object) -> None:
            stop.asked = True

    stop = StopSignal()
    with Subject("clipfit", tmp_path).cli() as cli:
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            Subject("clipfit", tmp_path).fit(cli, Swallow(), StopWhenAsked(stop))
        assert cli.trainer.global_step == 1
