"""Launchers: a worker does not outlive the process that it works for."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import time

import pytest

from clipbench.bench.launchers import _end_with_main, _start_server
from clipbench.errors import ConfigError


@pytest.mark.parametrize("error", [EOFError("unexpected EOF"), ConnectionRefusedError(), BrokenPipeError()])
def test_a_server_that_died_while_it_started_is_a_sentence(error: Exception) -> None:
    class Dying:
        def Process(self, target: object) -> Dying:
            return self

        def start(self) -> None:
            raise error

    with pytest.raises(ConfigError, match=r"out of memory.*--jobs 1"):
        _start_server(Dying())  # type: ignore[arg-type]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_worker_ends_with_a_killed_main_process_that_nobody_waits_for() -> None:
    """Until then its number is taken: whoever reads what both of them print would wait for ever."""
    read, write = os.pipe()
    main = os.fork()
    if main == 0:
        try:
            multiprocessing.get_context("fork").Process(target=_end_with_main).start()
            os.write(write, b"1")
            time.sleep(60)
        finally:
            os._exit(0)
    os.close(write)
    started = os.read(read, 1)
    os.kill(main, signal.SIGKILL)
    ended = select.select([read], [], [], 10)[0] and os.read(read, 1) == b""
    os.waitpid(main, 0)
    os.close(read)
    assert started
    assert ended
