"""`clipbench table`: seed by seed on request, one line for what is left out, printed where it cannot be written."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from clipbench.commands import main
from clipbench.records.store import run_folder, write_record
from tests.records.records import cell, record
from tests.report.boards import outcomes, write

Said = pytest.CaptureFixture[str]
FOLDER = ("mini", "base_to_novel")


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(run_folder("runs", *FOLDER), outcomes({"clipfit": (30, 20), "coop": (32, 20)}, seeds=2))
    return tmp_path


def table(*words: str) -> int:
    return main(["table", "--results", "runs", "--datasets", "dtd,imagenet", *words])


def rows(capsys: Said, *words: str) -> list[dict[str, str]]:
    assert table("--format", "csv", *words) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def test_per_seed_has_a_row_for_each_seed_in_the_order_of_the_means(capsys: Said) -> None:
    means, singles = rows(capsys), rows(capsys, "--per-seed")
    assert [row["recipe"] for row in singles] == ["coop"] * 6 + ["clipfit"] * 6
    assert [(row["dataset"], row["seeds"], row["cells"], row["cells_expected"]) for row in singles[:6]] == [
        ("imagenet", "1", "1", "1"), ("dtd", "1", "1", "1"), ("average", "1", "2", "2"),
        ("imagenet", "2", "1", "1"), ("dtd", "2", "1", "1"), ("average", "2", "2", "2"),
    ]  # fmt: skip
    assert singles[0]["base"] == "77.50", "31 of 40"
    assert singles[0]["base_std"] == ""
    for row in means:
        own = [
            float(one["base"]) for one in singles if (one["recipe"], one["dataset"]) == (row["recipe"], row["dataset"])
        ]
        assert sum(own) / len(own) == pytest.approx(float(row["base"]), abs=0.01)


def test_per_seed_in_every_form(capsys: Said) -> None:
    for form in ("text", "md", "tex"):
        assert table("--per-seed", "--format", form) == 0
        shown = capsys.readouterr().out
        assert "clipfit, seed 2" in shown
        assert "one seed a line" in " ".join(shown.split())
        assert "**" not in shown
        assert "textbf" not in shown, "seeds are no rivals"
    assert table("--per-seed", "--format", "json") == 0
    assert {row["seed"] for row in json.loads(capsys.readouterr().out)} == {1, 2}


def test_per_seed_names_missing_cells(results: Path, capsys: Said) -> None:
    next((results / "runs").rglob("clipfit-dtd-s16-seed2-*.json")).unlink()
    assert table("--per-seed") == 0
    assert "clipfit, seed 2: 1 of 2 cells missing (dtd 1)" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("form", ["text", "md", "tex", "csv", "json"])
def test_what_is_no_record_takes_nothing_away_and_is_one_line(results: Path, capsys: Said, form: str) -> None:
    assert table("--format", form) == 0
    whole = capsys.readouterr().out
    records = run_folder("runs", *FOLDER) / "records"
    os.mkfifo(records / "a.json")
    (records / "b.json").mkdir()
    (records / "c.json").write_text("[" * 100_000)
    (records / "d.json").write_text("")
    (records / "e\n\x1b[31m.json").write_text("{}")
    assert table("--format", form) == 0
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    if form in ("csv", "json"):
        assert said.out == whole
        (line,) = said.err.splitlines()
    else:
        line = " ".join(said.out.replace("\\", "").split())
        assert said.err == ""
    for text in ("left out 5 files among the records", "'a.json'", "is a pipe", "'b.json'", "is a folder", "2 more"):
        assert text in line.replace("{[}", "["), text


def test_with_damaged_records_alone_they_are_named(results: Path, capsys: Said) -> None:
    for path in (results / "runs").rglob("*.json"):
        path.write_text("")
    assert table() == 1
    assert "left out 12 files among the records: record 'clipfit-dtd" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["folder", "pipe", "file/table.md", "/proc/none/table.md"])
def test_a_table_that_cannot_be_written_is_printed(results: Path, capsys: Said, place: str) -> None:
    (results / "folder").mkdir()
    (results / "folder" / "kept").touch()
    (results / "file").touch()
    os.mkfifo(results / "pipe")
    assert table("--output", place) == 1
    assert (results / "pipe").is_fifo(), "what stands there stays"
    said = capsys.readouterr()
    assert "Average over 2 datasets" in said.out
    assert len(said.err.splitlines()) == 1
    assert f"cannot write '{Path(place).name}'" in said.err
    assert said.err.endswith("name another place with --output\n")


def test_a_missing_folder_is_made(results: Path, capsys: Said) -> None:
    assert table("--output", "new/er/table.md", "--format", "md") == 0
    assert capsys.readouterr().out == ""
    assert (results / "new/er/table.md").read_text().startswith("# Leaderboard")


@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_what_stands_in_the_place_of_the_records_is_said(results: Path, capsys: Said, kind: str) -> None:
    place = run_folder("other", *FOLDER)
    place.mkdir(parents=True)
    (place / "records").touch() if kind == "file" else os.mkfifo(place / "records")
    assert main(["table", "--results", "other"]) == 1
    assert "the records in other/mini/base_to_novel cannot be read (Not a directory)" in capsys.readouterr().err


KINDS: dict[str, dict[str, Any]] = {
    "version": {"versions": {"data": 2, "backbone": 1, "method": 1, "protocol": 1}},
    "backbone": {"backbone_hash": "c" * 64},
    "precision": {"precision": "bf16-mixed"},
    "settings": {"variant": {"model.lr": 0.5}},
    "class": {"class_path": "mine:CLIPFit"},
    "code": {"code": {"mine.py": "a" * 64}},
    "recipe": {"recipe_digest": "e" * 64},
    "data": {"split_hash": "t" * 64},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_says_what_keeps_rows_apart(capsys: Said, kind: str) -> None:
    odd = record(cell(dataset="dtd", seed=2), 1, 1, provenance=KINDS[kind], lr=2)
    write_record(run_folder("runs", *FOLDER), odd)
    assert table() == 0
    assert f"clipfit: 2 rows, which are kept apart by {kind}" in capsys.readouterr().out
    found = [row for row in rows(capsys) if row["recipe"] == "clipfit" and row["dataset"] == "dtd"]
    assert len({row["variant"] for row in found}) == 2
    assert {row["base"] for row in found} == {"76.25", "2.50"}, "nothing is averaged into another row"


@pytest.mark.parametrize("other", [{"setting": "fixed"}, {"backbone": "RN50/openai"}, {"shots": 4}])
def test_what_a_table_is_of_makes_a_table_of_its_own(capsys: Said, other: dict[str, Any]) -> None:
    write_record(run_folder("runs", *FOLDER), record(cell(**other), 1, 1))
    assert len({tuple(row[name] for name in other) for row in rows(capsys)}) == 2
    assert table("--format", "md") == 0
    together = "shots" in other  # a table of shots against datasets stands beside those of each
    assert capsys.readouterr().out.count("\n## ") == 2 + together


def test_few_shot_has_an_accuracy_and_no_base(capsys: Said) -> None:
    write_record(run_folder("runs", "mini", "few_shot"), record(cell(protocol="few_shot"), 30))
    assert main(["table", "--results", "runs", "--protocol", "few_shot", "--datasets", "dtd", "--format", "csv"]) == 0
    for row in csv.DictReader(io.StringIO(capsys.readouterr().out)):
        assert row["accuracy"] == "75.00"
        for name in ("base", "novel", "h", "h_mean", "joint_base", "joint_novel", "joint_h", "openworld_auc"):
            assert row[name] == ""


def test_a_partial_grid_says_what_to_write_for_an_average(capsys: Said) -> None:
    words = ["table", "--results", "runs", "--format", "csv"]
    assert main(words) == 0
    (note,) = [line for line in capsys.readouterr().err.splitlines() if "no row is complete" in line]
    assert note == "! no row is complete; averages over what is there: --datasets imagenet,stanford_cars,dtd"
    assert main([*words, *note.rpartition(": ")[2].split()]) == 0
    said = capsys.readouterr()
    assert "no row is complete" not in said.err
    averages = [row for row in csv.DictReader(io.StringIO(said.out)) if row["dataset"] == "average"]
    assert all(row["base"] and row["averaged"] == "3/11" for row in averages)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--compare", "published", "--per-seed"], "leave out --datasets"),
        (["--seeds", "7"], "unknown seed among the records"),
        (
            ["--datasets", "eurosat", "--methods", "coop"],
            "none of the 13 records in runs/mini/base_to_novel is of ",
        ),
        (["--suite", "../../etc"], "no name of a folder"),
        (["--suite", "/etc"], "no name of a folder"),
        (["--protocol", ".."], "no name of a folder"),
        (["--suite", "minn"], "there is no record in runs/minn"),
        (["--suite", "n" * 300], "cannot be read (File name too long)"),
        (["--output", ""], "names no file"),
        (["--output", "."], "names no file"),
    ],
)
def test_a_wrong_call_is_one_sentence(results: Path, capsys: Said, words: list[str], said: str) -> None:
    write_record(results / "runs" / Path(*FOLDER), record(cell(dataset="eurosat")))
    assert table(*words) in (1, 2)
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
