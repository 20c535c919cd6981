"""Any text as one line that a terminal, a log or a table shows as it is: nothing in it is carried out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

import warnings
from typing import Any

from clipbench.errors import ClipbenchWarning

_format = warnings.formatwarning


def printable(text: str, keep: str = "") -> str:
    r"""The text with everything that is not to be seen written out as in Python: `\x1b`, `\n`, `\u202e`, `\ud800`.

    That is what moves the cursor, colours, hides, breaks a line, turns the direction of writing, or cannot be encoded.

    Args:
        text: names, values and messages that come from a user's files.
        keep: characters that stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in keep else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


def warn_in_one_line() -> None:
    """From now on this process shows our own warnings as a line, as errors; Python's form names a line of code."""
    warnings.formatwarning = _one_line


def _one_line(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> str:
    if issubclass(category, ClipbenchWarning):
        return f"clipbench: {printable(str(message))}\n"
    return _format(message, category, *place, **more)


def say(console: Console, text: str) -> None:
    """Prints a text as it is: its lines stay lines, nothing in it is markup."""
    console.print(printable(text, keep="\n"), highlight=False, markup=False, soft_wrap=True)
