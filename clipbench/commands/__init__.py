"""The command line `clipbench`: one module a command, each with its parser and its run; torch comes with work."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import errno
import importlib
import io
import os
import sys
from collections.abc import Sequence

from clipbench import __version__
from clipbench.commands.drawing_folder import choose_drawing_folder
from clipbench.errors import ClipbenchError, ConfigError, Terminated
from clipbench.printable import printable, warn_in_one_line

# in the order of `clipbench --help`
COMMANDS = ("fit", "bench", "study", "table", "list", "show", "data", "analyze", "predict")
FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")  # Lightning reads them when it is imported
LIGHTNING = ("fit", "validate", "test")  # the subcommands of LightningCLI, whose options argparse does not know


PLAIN = "clipbench.plain"
LINES = dict.fromkeys("─━═╌", "-") | dict.fromkeys("│┃║", "|") | {"–": "-", "—": "-", "±": "+-", "†": "+", "…": "..."}  # noqa: RUF001


def _plain(error: UnicodeError) -> tuple[str, int]:
    """What a console without UTF-8 shows instead of a character that it lacks: lines of tables stay lines."""
    assert isinstance(error, UnicodeEncodeError)
    letters = error.object[error.start : error.end]
    corners = ("\u2500", "\u257f")
    return "".join(LINES.get(c) or ("+" if corners[0] <= c <= corners[1] else "?") for c in letters), error.end


codecs.register_error(PLAIN, _plain)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status.

    0: everything asked for was done; 1: something failed; 2: a wrong call; 130: stopped by Ctrl-C, 143: by SIGTERM.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
            stream.reconfigure(errors=PLAIN)
    warn_in_one_line()
    words = [*(sys.argv[1:] if arguments is None else arguments)]  # here `list` is the module of `clipbench list`
    status = 0
    try:
        _find_modules_here()
        _check_ranks()
        choose_drawing_folder()
        if words and words[0] in LIGHTNING:
            from clipbench.commands import fit

            status = fit.run(words[0], words[1:])
        else:
            options = parser().parse_args(words)
            status = options.run(options)
        if sys.stdout is not None:
            sys.stdout.flush()  # what cannot be written fails here, with a status, and not after it
        return status
    except ClipbenchError as error:
        print("clipbench: " + printable(str(error), keep="\n"), file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt as stop:
        print("clipbench: stopped", file=sys.stderr)
        return 143 if isinstance(stop, Terminated) else 130
    except BrokenPipeError:  # `clipbench list methods | head`
        _print_no_more()
        return status
    except OSError as error:
        if error.errno not in FULL:
            raise
        _print_no_more()
        print(
            f"clipbench: {FULL[error.errno]}: {printable(str(error.filename or 'not all could be written'))}",
            file=sys.stderr,
        )
        return 1
    except SystemExit as stop:
        return int(stop.code or 0) if not isinstance(stop.code, str) else 2


def _print_no_more() -> None:
    """What is still to be printed goes nowhere; else the interpreter tries once more at its end, and complains."""
    with contextlib.suppress(io.UnsupportedOperation):  # stands in for the console, as in a notebook
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _check_ranks() -> None:
    for name in RANKS:
        try:
            int(rank := os.environ.get(name, "0"))
        except ValueError as error:
            raise ConfigError(
                f"the environment variable {name} is '{rank}', and a rank is a whole number: unset it"
            ) from error


def _find_modules_here() -> None:
    """Lets modules beside the user be imported, as `python -m` does; installed ones come first."""
    try:
        here = os.getcwd()
    except FileNotFoundError as error:
        raise ConfigError("the folder that you are in was removed: change to another one") from error
    if {"", here}.isdisjoint(sys.path):
        sys.path.append(here)


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; what it parsed has `run`, to be called with it."""
    whole = argparse.ArgumentParser(
        prog="clipbench", description="Few-shot CLIP benchmarks: many methods, one exact protocol, one table."
    )
    whole.add_argument("--version", action="version", version=f"clipbench {__version__}")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        importlib.import_module(f"clipbench.commands.{name}").add_parser(commands)
    return whole
