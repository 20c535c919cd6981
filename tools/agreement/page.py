"""The table of docs/agreement.md: its bounds, and one row a recipe."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from tools.agreement.bounds import BOUNDS, COLUMNS

PAGE = Path(__file__).parents[2] / "docs" / "agreement.md"
HEAD = f"| recipe | {' | '.join(COLUMNS.values())} | official code | deliberate differences |"
BOUND = "| bound |"
NAME = re.compile(r"\| `(\w+)` \|")


def cells(numbers: Mapping[str, float]) -> str:
    """A number of each column, in the order of the table; "-" where there is none."""
    return " | ".join(f"{numbers[kind]:.1e}" if kind in numbers else "-" for kind in COLUMNS)


def bounds_row() -> str:
    """The row of the small table above the large one."""
    return f"{BOUND} {cells(BOUNDS)} |"


def rows() -> dict[str, str]:
    """The rows of the table as they stand in the page, by recipe."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start, end = _table(lines)
    found = {}
    for line in lines[start:end]:
        match = NAME.match(line)
        if match is None:
            raise SystemExit(f"{PAGE.name} has a row that begins with no recipe in backticks: {line}")
        found[match[1]] = line
    return found


def numbers_of(row: str) -> dict[str, float]:
    """The differences in a row, by kind; nothing for "-"."""
    found = zip(COLUMNS, row.split(" | ")[1:], strict=False)
    return {kind: float(cell) for kind, cell in found if cell != "-"}


def write_row(recipe: str, row: str) -> None:
    """Replace the row of a recipe in the page, or add it, in the order of names; the bounds are written as well."""
    written = rows() | {recipe: row}
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start, end = _table(lines)
    lines[start:end] = [written[name] for name in sorted(written)]
    lines = [bounds_row() if line.startswith(BOUND) else line for line in lines]
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _table(lines: list[str]) -> tuple[int, int]:
    """At which line its rows begin, and where they end."""
    head = next((number for number, line in enumerate(lines) if line == HEAD), None)
    if head is None:
        raise SystemExit(f"{PAGE.name} has no table that begins with: {HEAD}")
    end = next(n for n in range(head, len(lines) + 1) if n == len(lines) or not lines[n].startswith("|"))
    return head + 2, end
