"""Tables: what is bold, what is a dash, what the caption says; LaTeX that holds together and compiles."""

from __future__ import annotations

import io
import math
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipbench.errors import UnknownName
from clipbench.report.aggregate import COLUMNS
from clipbench.report.layout import DASH, marks, sections
from clipbench.report.tables import render
from tests.report.boards import DATASETS, EVIL, board, outcomes

WHOLE = board(outcomes())
HOLED = board(
    [
        one
        for one in outcomes()
        if (one["cell"]["recipe"], one["cell"]["dataset"], one["cell"]["seed"]) != ("coop", "dtd", 2)
    ]
)


def lines_of(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


def test_best_is_bold_second_underlined_and_frozen_rows_are_neither() -> None:
    """Averages of base: tip_adapter 35/40 (frozen), coop 31, clipfit 29, zero_shot 19."""
    summary = lines_of(render(WHOLE, "md"), "| ")[:6]
    by_recipe = {line.split("|")[1].strip(): [part.strip() for part in line.split("|")[2:5]] for line in summary[2:]}
    assert by_recipe == {
        "clipfit": ["<ins>72.50</ins> ± 2.50", "<ins>75.00</ins> ± 2.50", "**73.73**"],
        "tip\\_adapter †": ["87.50 ± 2.50", "77.50 ± 2.50", "82.20"],
        "coop": ["**77.50** ± 2.50", "52.50 ± 2.50", "<ins>62.60</ins>"],
        "zero\\_shot": ["47.50 ± 2.50", "**77.50** ± 2.50", "58.90"],
    }
    assert [line.split("|")[1].strip() for line in summary[2:]] == ["tip\\_adapter †", "clipfit", "coop", "zero\\_shot"]


def test_missing_cells_are_a_dash_a_count_and_never_ranked() -> None:
    text = render(HOLED, "md")
    (line,) = [line for line in lines_of(text, "| coop")[:1]]
    assert [part.strip() for part in line.split("|")[2:6]] == ["8/9", DASH, DASH, DASH]
    assert "- coop: 1 of 9 cells missing (dtd 1)" in text
    partial = next(part.strip() for part in lines_of(text, "| coop")[1].split("|")[4:5])
    assert partial == "80.00\\*", "two of three seeds: shown, marked, not bold though the largest"
    assert "no average, because cells are missing" in text
    assert "no average" not in render(WHOLE, "md")


def test_the_caption_says_what_the_numbers_are() -> None:
    for form in ("md", "tex", "text"):
        caption = " ".join(render(WHOLE, form).split())
        assert "Seeds 1, 2, 3." in caption
        assert "(n - 1) over seeds" in caption
        assert "say nothing about real accuracy" in caption
        assert "H is the harmonic mean of the two" in caption
    real = outcomes({"clipfit": (30, 29)}, seeds=1, suite="clip11", backbone="ViT-B-16/openai")
    text = render(board(real), "md")
    assert "real accuracy" not in text
    assert "n - 1" not in text, "one seed has no spread"
    assert "Seed 1." in text
    assert "**" not in text, "a single recipe has no rival"


def test_few_shot_is_headed_accuracy() -> None:
    frame = board(outcomes(protocol="few_shot"))
    for form in ("md", "tex", "text"):
        text = render(frame, form)
        assert "Accuracy" in text
        assert "Novel" not in text
    again = pd.read_csv(io.StringIO(render(frame, "csv")))
    assert again["accuracy"].notna().all()
    assert again[["base", "novel", "h", "h_mean", "base_std", "novel_std"]].isna().all(axis=None)


def test_identities_stand_in_tables_of_their_own() -> None:
    frame = board(
        [*outcomes(), *outcomes({"clipfit": (10, 10)}, setting="fixed"), *outcomes({"clipfit": (10, 10)}, shots=4)]
    )
    titles = [section.title for section in sections(frame)]
    assert len(titles) == len(set(titles)) == 3
    assert all(word in " ".join(titles) for word in ("setting fixed", "4 shots", "16 shots"))


def test_csv_is_tidy_and_reads_back_with_two_decimals() -> None:
    text = render(HOLED, "csv")
    again = pd.read_csv(io.StringIO(text))
    assert list(again.columns) == COLUMNS
    assert len(again) == 4 * (len(DATASETS) + 1)
    merged = again.merge(HOLED, on=["recipe", "dataset"], suffixes=("", "_exact"))
    for column in ("base", "novel", "h", "h_mean", "base_std", "novel_std"):
        pd.testing.assert_series_equal(
            merged[column], merged[f"{column}_exact"].round(2), check_names=False, atol=0.0051, rtol=0
        )
    assert again.loc[again["dataset"] == "average", "seeds"].tolist() == ["1,2,3"] * 4
    (average,) = [line for line in text.splitlines() if ",coop,CoOp,average," in line]
    assert average.startswith('mini,mini,base_to_novel,paper,16,coop,CoOp,average,"1,2,3",8,9,,,,,,,own,')


@given(values=st.lists(st.floats(0, 100) | st.just(math.nan), max_size=6), data=st.data())
def test_marks_go_to_the_largest_shown_values_and_only_to_eligible_ones(
    values: list[float], data: st.DataObject
) -> None:
    eligible = data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    got = marks(values, eligible)
    able = [round(v, 2) for v, ok in zip(values, eligible, strict=True) if ok and not math.isnan(v)]
    ranks = sorted(set(able), reverse=True)
    for value, ok, mark in zip(values, eligible, got, strict=True):
        if mark:
            assert ok
            assert round(value, 2) == ranks[("best", "second").index(mark)]
    assert ("best" in got) == (len(able) > 1)
    assert got.count("best") == (able.count(ranks[0]) if len(able) > 1 else 0)


def test_an_unknown_format_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'tex'"):
        render(WHOLE, "latex")


def test_in_the_terminal_one_recipe_is_shown_by_dataset_and_no_number_is_cut() -> None:
    one = render(board(outcomes({"clipfit": (30, 29)})), "text")
    assert re.search(r"stanford_cars\s+│\s+72\.50\s+│\s+75\.00\s+│\s+73\.73", one)
    many = {f"a_rather_long_recipe_{number}": (20 + number, 20) for number in range(9)}
    for text in (render(board(outcomes(many)), "text", width=80), one):
        assert "…" not in text
    rows = [line for line in render(board(outcomes(many)), "text", width=80).splitlines() if line.startswith("│ dtd")]
    assert sum(line.count("│") - 2 for line in rows) == 9, "the table goes on below itself"


def test_a_long_name_takes_the_place_of_no_number() -> None:
    """Settings of one's own make rows with names longer than a terminal is wide."""
    named = {f"promptsrc{number} (data.batch_size 16, model.average_mean 9.0, 3 more {'x' * 60})": (20 + number, 20)
             for number in range(2)}  # fmt: skip
    for some in (named, dict([*named.items()][:1])):
        text = render(board(outcomes(some)), "text", width=80)
        assert max(map(len, text.splitlines())) <= 80
        assert "…" not in text
        for dataset in DATASETS:
            for line in lines_of(text, f"│ {dataset}"):
                assert re.search(r"│\s+\d\d\.\d\d", line), line
        assert all(text.count(f"promptsrc{number}") >= 1 for number in range(len(some)))
        assert "62.50" in text or "50.00" in text


def check_structure(source: str) -> None:
    """Braces and environments close in order; rows have as many columns as announced; nothing special is left bare."""
    bare = re.sub(r"\\[\\&%$#_{}]", "", source)
    depth = 0
    for letter in bare:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        assert depth >= 0
    assert depth == 0
    stack: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", source):
        if kind == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert stack == []
    assert source.count("\\begin{document}") == source.count("\\documentclass") == 1
    tables = re.findall(r"\\begin\{tabular\}\{(\w+)\}\n(.*?)\\end\{tabular\}", source, re.DOTALL)
    assert tables
    for columns, body in tables:
        rules = re.findall(r"\\(toprule|midrule|bottomrule)", body)
        assert rules == ["toprule", "midrule", "bottomrule"]
        lines = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert len(lines) >= 2
        for line in lines:
            assert len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1, line
    text = re.sub(r"(?m)^%.*$", "", source)
    assert not re.search(r"(?<!\\)[#]|(?<!\\)%", text)
    assert all(letter.isascii() for letter in source)


NASTY = {"a_b&c%d#e": (30, 29), "{x}~y^z$": (31, 20), f"ünï{DASH}†±_\\": (10, 20)}


@pytest.mark.parametrize("frame", [WHOLE, HOLED, board(outcomes(protocol="few_shot")), board(outcomes(NASTY))])
def test_latex_holds_together(frame: pd.DataFrame) -> None:
    frame = frame.copy()
    frame.attrs["notes"] = ["50 % of {this} & that_"]
    source = render(frame, "tex")
    check_structure(source)
    assert source.count("\\begin{table}") == sum(1 + len(section.details) for section in sections(frame))


def test_latex_marks() -> None:
    source = render(WHOLE, "tex")
    (line,) = [line for line in source.splitlines() if line.startswith("clipfit &")][:1]
    assert r"\underline{72.50} {\scriptsize$\pm$\,2.50} & \underline{75.00}" in line
    assert r"\textbf{73.73}" in line
    (frozen,) = [line for line in source.splitlines() if line.startswith(r"tip\_adapter$^\dagger$")][:1]
    assert "textbf" not in frozen
    assert "underline" not in frozen


NAMES = [name for name in EVIL if name and len(name) < 40 and "\ud800" not in name]


@pytest.mark.parametrize("frame", [HOLED, board(outcomes(NASTY)), board(outcomes(dict.fromkeys(NAMES, (30, 29))))])
def test_latex_compiles(frame: pd.DataFrame, tmp_path: Path) -> None:
    programs = {
        "pdflatex": ["-interaction=nonstopmode", "-halt-on-error"],
        "latexmk": ["-pdf", "-interaction=nonstopmode", "-halt-on-error"],
        "tectonic": [],
    }
    program = next((name for name in programs if shutil.which(name)), None)
    if program is None:
        pytest.skip("no LaTeX here: pdflatex, latexmk and tectonic are missing (the structure is tested above)")
    (tmp_path / "leaderboard.tex").write_text(render(frame, "tex"), encoding="utf-8")
    done = subprocess.run(
        [program, *programs[program], "leaderboard.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "leaderboard.pdf").stat().st_size > 10_000
    assert "Overfull" not in done.stdout, "a table is wider than the page"


def test_every_cost_has_a_column_and_a_narrow_terminal_keeps_the_first_ones() -> None:
    some = outcomes({"clipfit": (30, 29), "freezing": (30, 28)})
    for one in some:
        one["cost"] |= {"stored_bytes": 15_200, "peak_bytes": 172_000_000, "inference_overhead": 0.034}
        if one["cell"]["recipe"] == "freezing":
            one["cost"]["trained_parameters_end"] = 460
    text = render(board(some), "md")
    heads = [part.strip() for part in lines_of(text, "| Recipe")[0].split("|")[5:-1]]
    assert heads == ["Trained", "At end", "Share %", "Stored", "Step", "Fit", "Peak", "Overhead %"]
    line = [part.strip() for part in lines_of(text, "| freezing")[0].split("|")[5:-1]]
    assert line == ["4,608", "460", "0.31", "15.2 kB", "20 ms", "1.5 s", "172 MB", "+3"]
    assert "At end: what is still trained" in text
    assert "At end" not in render(WHOLE, "md"), "where nothing shrinks the column would say nothing"
    check_structure(render(board(some), "tex"))
    wide, narrow = (render(board(some), "text", width=width) for width in (200, 80))
    assert all(head in wide for head in heads)
    assert "Trained" in narrow
    assert "Peak" not in narrow
    assert max(map(len, narrow.splitlines())) <= 80


def test_the_terminal_leaves_out_datasets_without_a_cell() -> None:
    some = board([one for one in outcomes() if one["cell"]["dataset"] == "dtd"])
    shown = render(some, "text")
    assert "2 without a cell left out" in shown
    assert "stanford_cars" not in shown.split("By dataset")[-1].split("│ average")[0]
    assert "left out" not in render(WHOLE, "text")
