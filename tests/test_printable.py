"""What is printed line by line is shown as it is."""

from __future__ import annotations

import io

from rich.console import Console

from clipbench.printable import say
from tests.report.boards import EVIL


def test_a_line_is_printed_as_it_is() -> None:
    for text in EVIL:
        file = io.StringIO()
        say(Console(file=file, width=40), f"a {text} b")
        shown = file.getvalue()
        assert shown.encode()
        assert "\x1b" not in shown
        assert len(shown.splitlines()) == len(text.split("\n"))
        if text.isprintable():
            assert shown == f"a {text} b\n"
