"""The leaderboard as CSV, Markdown, LaTeX or terminal text; one layout, four ways to write it down."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clipbench.errors import UnknownName
from clipbench.printable import printable
from clipbench.report.aggregate import AVERAGE, COLUMNS
from clipbench.report.cells import JOINT
from clipbench.report.escaping import csv_text, latex_text, markdown_line, markdown_text
from clipbench.report.joint_tables import with_joint
from clipbench.report.layout import DASH, PARTIAL, Grid, Line, Section, Shown, sections
from clipbench.report.shots_tables import with_shots

PERCENT = [
    "base", "novel", "accuracy", "h", "h_mean", "base_std", "novel_std", "h_vs_default", "h_vs_zero_shot",
    *JOINT, "joint_h",
]  # fmt: skip
WHOLE = ["trained_parameters", "trained_parameters_end", "stored_bytes", "peak_bytes"]
IN_A_TERMINAL = (
    "Trained", "At end", "Stored", "Fit", "vs zero-shot", "Recipe", "Gain/kB", "Step", "Overhead %", "Share %", "Peak",
)  # fmt: skip
"""Heads that a narrow terminal may do without, in the order in which it keeps them."""
NAME_WIDTH = 28  # columns of a terminal; a longer name may go on in the next line
FORMATS = ("csv", "json", "md", "tex", "text")


def render(frame: pd.DataFrame, format: str = "text", width: int = 100, beside: Sequence[Section] = ()) -> str:
    """The leaderboard as text.

    Args:
        frame: with the columns of `aggregate.COLUMNS`; `frame.attrs["notes"]` is a list of sentences to print below.
        format: `csv`, `json` (the rows, unrounded), `md`, `tex` (a LaTeX document) or `text` (for a terminal).
        width: columns of the terminal, for `text`.
        beside: more sections to show below, such as the published block (not in `csv`).

    Raises:
        UnknownName: another format.
    """
    shown, notes = layout_of(frame, beside)
    if format == "csv":
        return csv(frame)
    if format == "json":
        return frame.to_json(orient="records", indent=1)
    if format == "md":
        return markdown(shown, notes)
    if format == "tex":
        return latex(shown, notes)
    if format == "text":
        return text(shown, notes, width)
    raise UnknownName("table format", format, FORMATS)


def layout_of(frame: pd.DataFrame, beside: Sequence[Section] = ()) -> tuple[list[Section], list[str]]:
    """The sections of a frame, with more below, and its notes."""
    return [*with_shots(frame, with_joint(frame, sections(frame))), *beside], list(frame.attrs.get("notes", []))


def csv(frame: pd.DataFrame, columns: Sequence[str] = COLUMNS) -> str:
    """Tidy CSV: percent with two decimals, other numbers with six significant digits, empty where unknown."""
    shown = frame[list(columns)].astype(object)
    for column in columns:
        if column in PERCENT:
            form = "{:.2f}".format
        elif column in WHOLE:
            form = "{:.0f}".format
        else:
            form = "{:.6g}".format
        shown[column] = [_cell(value, form) for value in frame[column]]
    return shown.to_csv(index=False, lineterminator="\n")


def _cell(value: object, form: Callable[[float], str]) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else form(value)
    return "" if value is None else csv_text(value) if isinstance(value, str) else str(value)


def markdown(shown: Sequence[Section], notes: Sequence[str] = (), head: Sequence[str] = ("Leaderboard",)) -> str:
    """Markdown: per section a summary table, its caption, and one table per measure with the datasets as columns.

    Args:
        shown: the sections.
        notes: sentences to stand last.
        head: the title, and lines to stand below it.
    """
    title, *lines = head
    parts = [f"# {markdown_text(title)}", *map(markdown_line, lines)]
    for section in shown:
        parts += [f"## {markdown_text(_title(section))}", _markdown_grid(section.summary)]
        parts += [markdown_line(section.caption)] if section.caption else []
        parts += ["\n".join(f"- {markdown_line(note)}" for note in section.notes)] if section.notes else []
        for grid in [*section.beside, *section.details]:
            parts += [f"### {markdown_text(grid.title)}", _markdown_grid(grid)]
    parts += ["### Notes", "\n".join(f"- {markdown_line(note)}" for note in notes)] if notes else []
    return "\n\n".join(parts) + "\n"


def _markdown_grid(grid: Grid) -> str:
    rows = [list(map(markdown_text, grid.heads))]
    for line in grid.lines:
        label = markdown_text(line.label) + (f" {line.marks}" if line.marks else "")
        rows.append([label, *map(_markdown_entry, line.entries)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(grid.heads))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    aligned = [
        [
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in [aligned[0], rule, *aligned[1:]])


def _markdown_entry(entry: Shown) -> str:
    plain = markdown_text(entry.text)
    text = {"best": f"**{plain}**", "second": f"<ins>{plain}</ins>"}.get(entry.mark, plain)
    return text + (markdown_text(PARTIAL) if entry.partial else "") + (f" ± {entry.spread}" if entry.spread else "")


def _title(section: Section) -> str:
    return f"{section.title[:1].upper()}{section.title[1:]}"


def latex(shown: Sequence[Section], notes: Sequence[str] = ()) -> str:
    """A LaTeX document that stands alone: a booktabs table for the summary and one for each measure by dataset."""
    import jinja2

    environment = jinja2.Environment(  # noqa: S701 - LaTeX, not HTML; `tex` escapes
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        block_start_string="\\BLOCK{", block_end_string="}", variable_start_string="\\VAR{", variable_end_string="}",
        comment_start_string="\\#{", comment_end_string="}", trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters.update(tex=latex_text, heads=_latex_heads, line=_latex_line)
    template = environment.get_template("leaderboard.tex.j2")
    return template.render(sections=shown, notes=notes)


def _latex_heads(grid: Grid) -> str:
    turned = [
        rf"\rotatebox{{60}}{{{latex_text(head)}}}" if grid.by_dataset else latex_text(head) for head in grid.heads[1:]
    ]
    return " & ".join([latex_text(grid.heads[0]), *turned])


def _latex_line(line: Line) -> str:
    return " & ".join([latex_text(f"{line.label}{line.marks}"), *map(_latex_entry, line.entries)])


def _latex_entry(entry: Shown) -> str:
    command = {"best": r"\textbf{%s}", "second": r"\underline{%s}"}.get(entry.mark, "%s")
    spread = rf" {{\scriptsize$\pm$\,{entry.spread}}}" if entry.spread else ""
    return command % latex_text(entry.text) + (r"$^{*}$" if entry.partial else "") + spread


def terminal(sections: Sequence[Section], notes: Sequence[str] = (), width: int = 100) -> list[Table | Text]:
    """What a rich console prints: the summary, and by dataset all measures of one recipe or H of several.

    Args:
        sections: from `layout_of`.
        notes: sentences to print last.
        width: columns of the terminal; numbers are never cut, a table with many recipes goes on below itself.
    """
    shown: list[Table | Text] = []
    for section, following in zip(sections, [*sections[1:], None], strict=True):
        shown.append(Text(printable(_title(section)), style="bold"))
        shown += [_rich(grid.title, *_columns(grid, width)) for grid in [section.summary, *section.beside]]
        shown += _by_dataset(section, width) if any(grid.in_terminal for grid in section.details) else []
        if following is None or following.caption != section.caption:  # what several say stands once, below them
            shown.append(Text(printable(section.caption), style="dim"))
        shown += map(_note, section.notes)
    return shown + list(map(_note, notes))


def _note(text: str) -> Text:
    return Text(printable(f"! {text}"), style="yellow")


def _columns(grid: Grid, width: int) -> tuple[list[str], list[list[Text]]]:
    """Heads and rows of the summary, without the last of `IN_A_TERMINAL` where the terminal is too narrow for all."""
    rows = [[_label(line), *map(_rich_entry, line.entries)] for line in grid.lines]
    wide = [_least(head, [row[index] for row in rows], names=not index) + 3 for index, head in enumerate(grid.heads)]
    free = [index for index, head in enumerate(grid.heads) if index and head in IN_A_TERMINAL]
    free.sort(key=lambda index: IN_A_TERMINAL.index(grid.heads[index]))
    while free and sum(wide) + 1 > width:
        wide[free.pop()] = 0
    kept = [index for index, column in enumerate(wide) if column]
    return [grid.heads[index] for index in kept], [[row[index] for index in kept] for row in rows]


def _by_dataset(section: Section, width: int) -> list[Table]:
    """Datasets downwards: the measures of a single recipe, or the last measure of several recipes."""
    single = len(section.summary.lines) == 1
    details = [grid for grid in section.details if grid.in_terminal]
    grids = details if single else details[-1:]
    of_one = single and all(len(grid.lines) == 1 for grid in grids)
    columns = [
        (grid.title.split()[0] if of_one else _label(line).plain, [_rich_entry(entry) for entry in line.entries])
        for grid in grids
        for line in grid.lines
    ]
    datasets = [Text(printable(name)) for name in grids[0].heads[1:]]
    run = [
        index for index, name in enumerate(datasets)
        if name.plain == AVERAGE or any(entries[index].plain != DASH for _, entries in columns)
    ]  # fmt: skip
    room = width - max(name.cell_len for name in datasets) - 4
    tables, block, used = [], list[tuple[str, list[Text]]](), 0
    for head, entries in columns:
        wide = _least(head, entries) + 3
        if block and used + wide > room:
            tables.append(block)
            block, used = [], 0
        block.append((head, entries))
        used += wide
    title = "By dataset" if of_one else grids[0].title
    left = len(datasets) - len(run)
    title += f" ({left} without a cell left out)" if left else ""
    return [
        _rich(title, ["Dataset", *(head for head, _ in block)],
              [[datasets[index], *(entries[index] for _, entries in block)] for index in run])
        for block in [*tables, block]
    ]  # fmt: skip


def _least(head: str, entries: Sequence[Text], names: bool = False) -> int:
    """How narrow a column can be: numbers stay whole, names beyond `NAME_WIDTH` go on in the next line."""
    widths = [entry.cell_len for entry in entries]
    return max(min(cell_len(head), NAME_WIDTH), *(min(width, NAME_WIDTH) if names else width for width in widths))


def _rich(title: str, heads: list[str], rows: list[list[Text]]) -> Table:
    table = Table(title=Text(printable(title), style="italic"), title_justify="left")
    for index, head in enumerate(heads):
        words = index == 0 or head == "Source"
        least = None if head == "Source" else _least(head, [row[index] for row in rows], names=not index)
        table.add_column(
            Text(printable(head)), justify="left" if words else "right", no_wrap=head == "Source",
            overflow="ellipsis" if head == "Source" else "fold", min_width=least,
        )  # fmt: skip
    for row in rows:
        if row[0].plain == AVERAGE and len(rows) > 1:
            table.add_section()
        table.add_row(*row)
    return table


def _label(line: Line) -> Text:
    return Text(printable(line.label) + (f" {line.marks}" if line.marks else ""))


def _rich_entry(entry: Shown) -> Text:
    text = Text(printable(entry.text), style={"best": "bold", "second": "underline"}.get(entry.mark, ""))
    text.append(PARTIAL if entry.partial else "", style="not bold")
    return text.append(f" ± {entry.spread}" if entry.spread else "", style="dim")


def text(sections: Sequence[Section], notes: Sequence[str] = (), width: int = 100) -> str:
    """What `terminal` prints, without colours."""
    file = io.StringIO()
    console = Console(file=file, width=width, color_system=None)
    for shown in terminal(sections, notes, width):
        console.print(shown)
    return re.sub(r"[ \t]+\n", "\n", file.getvalue())
