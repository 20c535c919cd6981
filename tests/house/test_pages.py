"""What README and docs tell a reader to type is understood by make and by the command line."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from clipbench import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
VARIABLES = set(re.findall(r"call flag,([A-Z]+),", (ROOT / "Makefile").read_text())) | {
    "METHOD",
    "RECIPE",
    "STUDY",
    "ARGS",
    "RUNS",
}


def typed(program: str) -> list[str]:
    """Every call of a program in code: indented lines without their comments, and words between backticks."""
    calls = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        calls |= set(re.findall(rf"^ {{4}}(?:.*&& )?({program} .+?)(?:  .*)?$", text, re.MULTILINE))
        calls |= set(re.findall(rf"`({program} [^`]+)`", text))
    return sorted(call for call in calls if "..." not in call and "<" not in call)


def test_there_are_calls_to_check() -> None:
    assert "make bench METHOD=clipfit" in typed("make")
    assert len(typed("clipbench")) > 10


@pytest.mark.parametrize("call", typed("make"))
def test_make_knows_target_and_variables(call: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for word in shlex.split(call.replace("[", "").replace("]", ""))[1:]:
        name, equals, _ = word.partition("=")
        assert name in (VARIABLES if equals else targets)


@pytest.mark.parametrize("call", [call for call in typed("clipbench") if call.split()[1] not in cli.LIGHTNING])
def test_the_command_line_understands(call: str) -> None:
    words = shlex.split(call)[1:]
    if words == ["--help"]:
        return
    cli._parser().parse_args(words)
