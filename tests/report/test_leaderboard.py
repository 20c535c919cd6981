"""Run folder in, files out; `clipbench table`; the papers' block only where it may stand."""

from __future__ import annotations

import errno
import io
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from clipbench import atomic
from clipbench.commands.table import table_text
from clipbench.errors import RecordError
from clipbench.records.store import SCHEMA, RecordStore, read_record
from clipbench.report import compare_published, load_frame, render, write_leaderboard
from clipbench.report.compare import published_sections
from clipbench.report.published import KEYS
from tests.records.records import cell, record
from tests.report.boards import DATASETS, board, outcomes, write

FILES = [
    "accuracy_vs_cost.pdf",
    "accuracy_vs_cost.png",
    "leaderboard.csv",
    "leaderboard.md",
    "leaderboard.tex",
    "scatter.pdf",
    "scatter.png",
]


def real(recipe: str = "zero_shot", base: int = 30, novel: int = 20, **identity: Any) -> list[dict[str, Any]]:
    """All eleven datasets of clip11 with OpenAI's ViT-B/16."""
    same = {"suite": "clip11", "backbone": "ViT-B-16/openai", "recipe": recipe, **identity}
    return [
        record(cell(**{**same, "dataset": key, "seed": seed}), base, novel)
        for key in KEYS.values()
        for seed in (1, 2, 3)
    ]


def test_a_leaderboard_is_seven_files_written_whole_and_the_same_twice(tmp_path: Path) -> None:
    write(tmp_path, outcomes())
    board_ = write_leaderboard(tmp_path, datasets=DATASETS)
    assert sorted(path.name for path in board_.files.values()) == FILES
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == FILES, "no temporary files"
    first = {name: (tmp_path / name).read_bytes() for name in FILES}
    assert first["scatter.png"].startswith(b"\x89PNG")
    assert first["scatter.pdf"].startswith(b"%PDF")
    write_leaderboard(tmp_path, datasets=DATASETS)
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == first
    pd.testing.assert_frame_equal(board_.frame, load_frame(tmp_path, datasets=DATASETS))
    console = Console(record=True, width=100, file=open(os.devnull, "w"))  # noqa: SIM115
    board_.print(console)
    text = console.export_text()
    assert "clipfit" in text
    assert "scatter.png" in text


def test_the_datasets_of_a_packaged_suite_are_expected_without_being_told(tmp_path: Path) -> None:
    write(tmp_path, outcomes())
    average = load_frame(tmp_path).query("dataset == 'average' and recipe == 'coop'").iloc[0]
    assert (average["cells"], average["cells_expected"]) == (9, 33)
    own = tmp_path / "own"
    write(own, outcomes(suite="my own"))
    average = load_frame(own).query("dataset == 'average' and recipe == 'coop'").iloc[0]
    assert (average["cells"], average["cells_expected"]) == (9, 9)


def test_damaged_newer_and_dirty_records_are_named_in_the_leaderboard(tmp_path: Path) -> None:
    some = outcomes({"clipfit": (30, 20)})
    some[0]["environment"]["dirty"] = True
    write(tmp_path, some)
    paths = sorted((tmp_path / "records").glob("*.json"))
    paths[0].write_text(paths[0].read_text()[:200])
    paths[1].write_text(paths[1].read_text().replace(f'"schema": {SCHEMA}', f'"schema": {SCHEMA + 1}', 1))
    board_ = write_leaderboard(tmp_path, datasets=DATASETS)
    notes = " ".join(board_.notes)
    assert paths[0].name in notes
    assert f"schema {SCHEMA + 1} > {SCHEMA}" in notes
    assert "uncommitted changes" in notes or "seed1" in paths[0].name + paths[1].name
    assert (board_.frame["cells"] - board_.frame["cells_expected"]).iloc[-1] == -2
    assert paths[0].name in (tmp_path / "leaderboard.md").read_text()


def test_an_empty_folder_and_a_full_disk_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecordError, match="there is no record in"):
        write_leaderboard(tmp_path)
    write(tmp_path, outcomes({"clipfit": (30, 20)}))
    write_leaderboard(tmp_path)
    before = (tmp_path / "leaderboard.csv").read_bytes()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(RecordError, match="the disk is full"):
        write_leaderboard(tmp_path).print(Console(file=io.StringIO()))
    assert (tmp_path / "leaderboard.csv").read_bytes() == before


@pytest.mark.parametrize("name", ["leaderboard.csv", "accuracy_vs_cost.pdf"])
def test_a_file_that_cannot_be_written_takes_no_table_away(tmp_path: Path, name: str) -> None:
    write(tmp_path, outcomes({"clipfit": (30, 20)}))
    (tmp_path / name).mkdir()
    (tmp_path / name / "kept").touch()
    board_ = write_leaderboard(tmp_path, datasets=DATASETS)
    console = Console(record=True, width=100, file=io.StringIO())
    with pytest.raises(RecordError, match=f"cannot write '{name}'"):
        board_.print(console)
    shown = console.export_text()
    assert "Average over 3 datasets" in shown
    missing = {name, name.replace(".pdf", ".png")}  # a figure has two forms
    assert {path.name for path in board_.files.values()} == set(FILES) - missing


def test_records_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mini" / "base_to_novel"
    write(folder, outcomes({"clipfit": (30, 20)}))
    read = Counter[str]()

    def counting(path: Path) -> Any:
        read[path.name] += 1
        return read_record(path)

    monkeypatch.setattr("clipbench.records.store.read_record", counting)
    write_leaderboard(folder, datasets=DATASETS, over=["dtd"])
    assert set(read.values()) == {1}
    read.clear()
    table_text(tmp_path, "mini", "base_to_novel", wanted={"dataset": ["dtd"], "seed": ["1"]})
    assert set(read.values()) == {1}


def test_the_note_of_the_suite_stands_in_the_caption(tmp_path: Path) -> None:
    write(tmp_path, outcomes({"clipfit": (30, 20)}, suite="mine"))
    text = render(load_frame(tmp_path, note="Photos of my garden."), "md")
    assert "Photos of my garden." in text


def test_table_prints_what_there_is_and_says_what_there_is_not(tmp_path: Path) -> None:
    write(tmp_path / "mini" / "base_to_novel", outcomes())
    for form, start in (("text", "Suite mini"), ("csv", "suite,backbone"), ("md", "# Leaderboard"), ("tex", "%")):
        assert table_text(tmp_path, "mini", "base_to_novel", form).startswith(start)
    with pytest.raises(RecordError, match="there are records of mini base_to_novel"):
        table_text(tmp_path, "clip11", "base_to_novel")


def test_published_rows_stand_alone_without_comparable_records(tmp_path: Path) -> None:
    text = " ".join(table_text(tmp_path, "clip11", "base_to_novel", compare="published").split())
    assert "the published block stands alone" in text
    assert "skip_tuning" in text
    assert "promptkd" not in text
    text = " ".join(compare_published(board(outcomes())).split())
    assert "the published block stands alone" in text
    assert "Nothing of suite mini may be compared with it." in text
    assert "ours" not in text.replace("our own", "").split()


@pytest.mark.parametrize(
    "other",
    [
        {"suite": "another"},
        {"backbone": "ViT-B-32/openai"},
        {"backbone": "ViT-B-16/laion2b_s34b_b88k"},
        {"backbone": "ViT-B-16/openai?image_size=112"},
    ],
)
def test_other_suites_and_backbones_are_not_set_beside_the_papers(other: dict[str, Any]) -> None:
    assert "stands alone" in published_sections(board(real(**other)))[0].caption


@pytest.mark.parametrize("pretrained", ["ViT-B-16/openai", "ViT-B-16/laion2b_s34b_b88k", ""])
def test_a_file_of_openais_weights_counts_as_such_wherever_it_lies(pretrained: str) -> None:
    name = "ViT-B-16@clip/renamed.pt"
    cells = [one | {"provenance": one["provenance"] | {"pretrained": pretrained}} for one in real(backbone=name)]
    alone = "stands alone" in published_sections(board(cells))[0].caption
    assert alone == (pretrained != "ViT-B-16/openai")


def test_other_data_under_the_name_of_the_suite_stand_beside_no_paper() -> None:
    cells = real()
    cells[4]["provenance"]["suite_digest"] = "f" * 64
    assert "stands alone" in published_sections(board([cells[4]]))[0].caption
    (section,) = published_sections(board(cells))
    assert [line.label for line in section.summary.lines if "ours" in line.label] == ["zero_shot, ours"]


def test_comparable_rows_stand_above_the_block_with_the_difference(tmp_path: Path) -> None:
    folder = tmp_path / "clip11" / "base_to_novel"
    write(folder, real())
    (section,) = published_sections(load_frame(folder), {"zero_shot": "clip_zs"})
    first = section.summary.lines[0]
    assert first.label == "zero_shot, ours"
    assert [entry.text for entry in first.entries[:4]] == ["75.00", "50.00", "60.00", "-11.70"]
    assert section.summary.heads == ["Recipe", "Base", "Novel", "H", "vs paper", "Source"]
    ours, paper = section.details[0].lines
    assert (ours.label, paper.label) == ("zero_shot, ours", "clip_zs, paper")
    assert [paper.entries[0].text, paper.entries[-1].text] == ["70.22", "71.70"]
    assert "alone" not in section.caption
    text = table_text(tmp_path, "clip11", "base_to_novel", compare="published")
    assert "zero_shot, ours" in text


def test_compared_csv_of_several_shots_has_the_papers_rows_at_each(tmp_path: Path) -> None:
    folder = tmp_path / "clip11" / "few_shot"
    write(folder, [one for shots in (1, 4, 5) for one in real(protocol="few_shot", shots=shots)])
    text = table_text(tmp_path, "clip11", "few_shot", "csv", "published")
    papers = pd.read_csv(io.StringIO(text)).query("setting == 'published' and dataset == 'average'")
    assert set(papers["shots"]) == {1, 4}, "no paper has five"
    titles = [one.title for one in published_sections(load_frame(folder))]
    assert titles == [f"published, ViT-B/16, few-shot, all classes, {shots} shots" for shots in (1, 4)]


def test_our_rows_beside_the_papers_say_what_was_chosen_on_val_images() -> None:
    cells = [one | {"validation_free": False} for one in real()]
    (section,) = published_sections(board(cells))
    assert [line.label for line in section.summary.lines if line.validated] == ["zero_shot, ours"]
    assert "labelled images beyond the shots" in section.caption
    assert "labelled images beyond the shots" not in published_sections(board(real()))[0].caption


def test_compared_csv_adds_rows_of_setting_published(tmp_path: Path) -> None:
    write(tmp_path / "clip11" / "base_to_novel", real())
    lines = table_text(tmp_path, "clip11", "base_to_novel", "csv", "published").splitlines()
    assert sum(",paper," in line for line in lines) == 12
    assert any(line.startswith("clip11,ViT-B/16,base_to_novel,published,16,maple,maple,average,") for line in lines)


def test_few_shot_is_compared_at_its_own_shots(tmp_path: Path) -> None:
    frame = board(real("coop", protocol="few_shot", shots=4))
    (section,) = published_sections(frame)
    assert "4 shots" in section.title
    assert section.summary.heads == ["Recipe", "Accuracy", "vs paper", "Source"]
    stated = {line.label: line.entries[0].text for line in section.summary.lines}
    assert stated["coop"] == "73.59"
    assert stated["plot++"] == "76.92"


def test_a_second_folder_does_not_leak_into_the_first(tmp_path: Path) -> None:
    write(tmp_path / "a", outcomes({"clipfit": (30, 20)}))
    write(tmp_path / "b", outcomes({"coop": (30, 20)}))
    assert set(load_frame(tmp_path / "a")["recipe"]) == {"clipfit"}
    assert RecordStore(tmp_path / "c").all() == []
    assert load_frame(tmp_path / "c").empty
