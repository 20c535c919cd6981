"""Names and texts come from users' files: a table keeps its cells, and nothing in them is carried out."""

from __future__ import annotations

import csv
import io
import re
import warnings
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

from clipbench.printable import printable
from clipbench.records.store import Record
from clipbench.report.aggregate import aggregate
from clipbench.report.cells import cells_of
from clipbench.report.cost_figure import accuracy_vs_cost
from clipbench.report.escaping import csv_text, figure_text, latex_text, markdown_line, markdown_text
from clipbench.report.figures import figure
from clipbench.report.select import select
from clipbench.report.tables import render
from tests.records.records import cell, record
from tests.report.boards import EVIL
from tests.report.test_tables import check_structure

texts = st.sampled_from(EVIL) | st.text(max_size=12)
markdown = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def shown_by_markdown(source: str) -> list[str]:
    """The text of each cell of the only thing there, a table; an error where anything else was made of it."""
    tree = SyntaxTreeNode(markdown.parse(source))
    (table,) = tree.children
    assert table.type == "table"
    kinds = {node.type for node in table.walk()}
    assert kinds <= {"table", "thead", "tbody", "tr", "th", "td", "inline", "text", "text_special"}, kinds
    return ["".join(n.content for n in c.walk() if n.type == "text") for c in table.walk() if c.type in ("td", "th")]


@given(text=texts, other=texts)
def test_a_cell_of_markdown_shows_the_text_and_nothing_else(text: str, other: str) -> None:
    source = f"| {markdown_text(text)} | {markdown_text(other)} |\n| --- | --- |\n"
    assert shown_by_markdown(source) == [printable(text).strip(), printable(other).strip()]


@given(text=texts)
def test_a_line_of_markdown_is_a_line(text: str) -> None:
    for before in ("", "- "):
        line = markdown_line(text)
        tree = SyntaxTreeNode(markdown.parse(f"{before}{line}\n"))
        kinds = {node.type for node in tree.walk()}
        allowed = {"root", "bullet_list", "list_item"} if before else {"root"}
        assert kinds <= allowed | {"paragraph", "inline", "text", "text_special"}, kinds
        assert "".join(n.content for n in tree.walk() if n.type == "text") == printable(text).strip()


@given(text=texts)
@example(text="--")
@example(text="\uff05\ufe6a\uff3f\uff3b\x00\t")  # wide per cent signs, underscore and bracket; control characters
def test_latex_has_no_command_in_it(text: str) -> None:
    source = latex_text(text)
    bare = re.sub(r"\\text\w+\{\}|\$\\pm\$|\$\^\\dagger\$|\\[&%$#_{}]|\{[][*]\}", "x", source)
    assert "--" not in bare or "–" in text  # noqa: RUF001
    bare = bare.replace("{}", "")
    assert not set("\\&%$#_{}~^[]*`\n") & set(bare)
    assert bare.isascii()
    assert bare.isprintable() or not bare


@given(text=texts)
def test_a_cell_of_csv_is_one_cell_and_no_formula(text: str) -> None:
    file = io.StringIO()
    csv.writer(file).writerow([csv_text(text), "next"])
    file.seek(0)
    ((found, following),) = csv.reader(file)
    assert following == "next"
    assert found.isprintable()
    assert not found.lstrip().startswith(("=", "+", "-", "@"))
    assert found.removeprefix("'") == printable(text).removeprefix("'")


@given(text=texts)
def test_what_is_printable_is_one_visible_line(text: str) -> None:
    line = printable(text)
    assert line.isprintable()
    line.encode()
    assert not text.isprintable() or line == text
    assert printable(line) == line


def board(names: list[str], place: str = "recipe", **identity: Any) -> Any:
    """A leaderboard with the names in one place of its cells, and in its notes."""
    cells = [cell(**(identity | {place: name})) for name in dict.fromkeys(names)]
    chosen = select(Record(record(one, base=10 + number % 30)) for number, one in enumerate(cells))
    frame = aggregate(cells_of(chosen.records), chosen.missing)
    frame.attrs["notes"] = names
    return frame


@pytest.mark.parametrize("place", ["recipe", "dataset", "suite", "backbone", "protocol", "setting"])
def test_a_table_of_any_names_keeps_its_form(place: str) -> None:
    frame = board([name for name in EVIL if name and "\ud800" not in name], place)
    check_structure(render(frame, "tex"))
    rows = list(csv.DictReader(io.StringIO(render(frame, "csv"))))
    assert len(rows) == len(frame)
    assert all(None not in row and None not in row.values() for row in rows)
    text = render(frame, "text", 200)
    assert set(filter(lambda letter: not letter.isprintable(), text)) <= {"\n"}
    tree = SyntaxTreeNode(markdown.parse(render(frame, "md")))
    for table in tree.walk():
        if table.type == "table":
            widths = {len(row.children) for row in table.walk() if row.type == "tr"}
            assert len(widths) == 1
    kinds = {node.type for node in tree.walk() if node.type == "root" or node.content not in ("<ins>", "</ins>")}
    assert not {"html_block", "html_inline", "link", "image", "code_inline", "code_block", "fence"} & kinds


def test_a_row_begins_with_nothing_that_latex_takes_for_an_argument() -> None:
    source = render(board(["[2cm]", "*", "x"]), "tex")
    for before, after in zip(source.splitlines(), source.splitlines()[1:], strict=False):
        if before.endswith((r"\\", "rule")):
            assert not after.startswith(("[", "*"))


def test_rich_markup_in_names_is_text() -> None:
    frame = board(["[red]a[/red]", "[/nothing]"], suite="[bold]s", dataset="[link=x]d")
    shown = render(frame, "text", 200)
    for text in ("[red]a[/red]", "[/nothing]", "[bold]s", "[link=x]d"):
        assert text in shown


def test_wide_letters_keep_their_columns() -> None:
    lines = render(board(["日本語日本語", "x"]), "text", 120).splitlines()
    assert any("日本語日本語" in line for line in lines), "nothing of a name is cut"


def test_figures_show_names_as_they_are() -> None:
    names = [text for text in EVIL if text and len(text) < 40 and "\ud800" not in text]
    frame = board(names, suite="$x_", dataset="_$")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for drawn in (figure(frame), accuracy_vs_cost(frame)):
            drawn.canvas.draw()


def test_a_figure_has_no_mathematics_in_a_name() -> None:
    from matplotlib.figure import Figure

    for text in ("$x$", r"\$", "$", "a$b$c", r"$\frac{1}{0}$"):
        label = Figure().text(0, 0, figure_text(text))
        shown, is_math = label._preprocess_math(label.get_text())
        assert (shown, is_math) == (text, False)
    assert not figure_text("_x").startswith("_"), "a legend passes over such names"
    assert figure_text("日") == "?"
