"""A wish to stop is never lost."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import lightning as L
import pytest

from clipbench.bench.stop import StopSignal, StopWhenAsked, signals_held
from clipbench.commands import main
from clipbench.errors import Terminated
from clipbench.testing.subject import Subject


def test_a_signal_is_an_exception_and_is_remembered() -> None:
    for number, expected in ((signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)):
        before = signal.getsignal(number)
        with StopSignal() as stop, pytest.raises(KeyboardInterrupt) as caught:
            signal.raise_signal(number)
        assert caught.type is expected
        assert type(stop.exception()) is expected
        assert stop.asked
        assert signal.getsignal(number) is before


def test_a_signal_waits_where_it_is_held() -> None:
    passed = []

    def work() -> None:
        with signals_held():
            assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()), "a child would hear Ctrl-C"
            os.kill(os.getpid(), signal.SIGTERM)
            passed.append("to the end")
        passed.append("and further")

    with StopSignal(), pytest.raises(Terminated):
        work()
    assert passed == ["to the end"]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.parametrize(("stop", "status"), [(KeyboardInterrupt(), 130), (Terminated(), 143)])
def test_the_status_says_which_signal_it_was(
    stop: KeyboardInterrupt, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: object) -> int:
        raise stop

    monkeypatch.setattr("clipbench.commands.bench.run", run)
    assert main(["bench", "--method", "zero_shot"]) == status
    assert capsys.readouterr().err == "clipbench: stopped\n"


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
