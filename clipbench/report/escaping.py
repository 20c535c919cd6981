"""Any text as the text that it is, in LaTeX, Markdown, CSV and figures: names come from users' files and records.

What cannot be seen (line breaks, escape sequences, changes of direction) is written out first, see `printable`.
"""

from __future__ import annotations

import functools
import re
import unicodedata

from clipbench.printable import printable

DASH = "–"  # noqa: RUF001 - as tables print what is not there
FROZEN = "†"
VALIDATED = "‡"
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", DASH: "--", FROZEN: r"$^\dagger$", VALIDATED: r"$^\ddagger$",
    "|": r"\textbar{}", "`": r"\textasciigrave{}",
    "[": "{[}", "]": "{]}", "*": "{*}",  # at the start of a row they would be arguments of the row before
}  # fmt: skip
MARKDOWN = re.compile(r"[\\`*_\[\]|~$#]")
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
BLOCK = re.compile(r"[-+=]|\d+(?=[.)])")  # at the start of a line they would be a list, a rule or a heading
FORMULA = ("=", "+", "-", "@")


def latex_text(text: str) -> str:
    """Text for LaTeX; letters that the default fonts lack become their base letter or a question mark."""
    hyphens = re.sub("-(?=-)", "-\0", printable(text))  # LaTeX makes a dash of two
    return "".join("{}" if letter == "\0" else LATEX.get(letter) or _plain(letter) for letter in hyphens)


def _plain(letter: str) -> str:
    if letter.isascii():
        return letter
    base = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()  # a wide % becomes a bare one
    return "".join(LATEX.get(simple, simple) for simple in base if simple.isprintable()) or "?"


def markdown_text(text: str) -> str:
    """Text for a cell of a table, a heading or a line of Markdown, HTML included."""
    return "".join(ENTITIES.get(letter, letter) for letter in MARKDOWN.sub(r"\\\g<0>", printable(text).strip()))


def markdown_line(text: str) -> str:
    """Text for a line of its own, or an item of a list."""
    line = markdown_text(text)
    found = BLOCK.match(line)
    if found is None:
        return line
    start, mark = (found[0], line[found.end()]) if found[0].isdigit() else ("", found[0])
    return f"{start}\\{mark}{line[len(start) + len(mark) :]}"


def csv_text(text: str) -> str:
    """Text for a cell of a CSV file; what a spreadsheet would take for a formula has `'` before it."""
    shown = printable(text)
    return f"'{shown}" if shown.lstrip().startswith(FORMULA) else shown


def figure_text(text: str) -> str:
    """Text for a figure: no mathematics in it, no name that a legend passes over, no letter that the font lacks."""
    letters = _letters_of_font()
    shown = "".join(letter if ord(letter) in letters else "?" for letter in printable(text))
    return shown.replace("$", r"\$").replace("_", " _", 1) if shown.startswith("_") else shown.replace("$", r"\$")


@functools.cache
def _letters_of_font() -> frozenset[int]:
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())
