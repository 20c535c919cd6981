"""Tables and figures of a study: differences to the default, marks per axis, a caption that says what it stands on."""

from __future__ import annotations

import copy
import csv
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from clipbench.errors import RecordError
from clipbench.recipes.studies import Study, study_from
from clipbench.recipes.suites import load_suite
from clipbench.records.store import Record
from clipbench.report.harmonic import harmonic_mean
from clipbench.report.select import Planned
from clipbench.report.study import study_figures, study_frame, write_study
from clipbench.report.study_tables import scope_of, standard_error, study_sections
from tests.recipes.test_studies import STUDY
from tests.records.records import cell, record
from tests.report.boards import write
from tests.report.test_tables import check_structure

DATASETS = ["eurosat", "dtd"]
SCORES = {
    "plain": (30, 30), "weight_10": (32, 31), "weight_half": (28, 30), "context": (33, 24), "context_4": (31, 26),
    "zero_shot": (24, 26),
}  # fmt: skip
SCOPE = "Suite mini, base-to-novel, 2 shots; datasets eurosat and dtd (2 of the suite's 11); one seed (1)"
FILES = ["accuracy_vs_share.pdf", "accuracy_vs_share.png", "axes.pdf", "axes.png", "study.csv", "study.md", "study.tex"]


def study(**changes: Any) -> Study:
    return study_from(copy.deepcopy(STUDY) | changes, "parts.yaml")


def outcomes(scores: dict[str, tuple[int, int]] = SCORES, **changes: Any) -> list[dict[str, Any]]:
    """Records of 40 test images a split; the second dataset has one more right."""
    some = []
    for label, (base, novel) in scores.items():
        size = 0 if label == "zero_shot" else 1000 * (1 + len(label))
        cost = {"trained_parameters": size, "trained_parameters_end": size, "stored_bytes": 4 * size}
        for place, dataset in enumerate(DATASETS):
            of = cell(**{"recipe": label, "dataset": dataset, "seed": 1, "shots": 2} | changes)
            one = record(of, base + place, novel + place, cost=cost)
            if label == "context" and "novel" in one["splits"]:
                one["splits"]["novel"]["novel_rule"] = "frozen"
            some.append(one)
    return some


def planned(records: list[dict[str, Any]]) -> list[Planned]:
    return [Record(one) for one in records]  # a record has the cell and the key of its plan


@pytest.fixture
def frame(tmp_path: Path) -> pd.DataFrame:
    some = outcomes()
    write(tmp_path, some)
    return study_frame(study(), tmp_path, planned(some))


def average(frame: pd.DataFrame, axis: str, value: str) -> pd.Series:
    (place,) = np.flatnonzero((frame.axis == axis) & (frame.value == value) & (frame.dataset == "average"))
    return frame.iloc[place]


def test_each_axis_has_its_points_and_its_default(frame: pd.DataFrame) -> None:
    own = frame[frame.dataset == "average"]
    assert list(zip(own.axis, own.value, own.recipe, own.is_default, strict=True)) == [
        ("beside", "plain", "plain", True),
        ("beside", "context", "context", False),
        ("beside", "zero_shot", "zero_shot", False),
        ("weight", "0.5", "weight_half", False),
        ("weight", "8", "plain", True),
        ("weight", "10", "weight_10", False),
        ("family", "clipfit", "plain", True),
        ("family", "coop", "context", False),
        ("words", "4", "context_4", False),
        ("words", "16", "context", True),
    ]
    assert set(frame.dataset) == {*DATASETS, "average"}


def test_differences_are_to_the_default_of_the_axis_and_to_zero_shot(frame: pd.DataFrame) -> None:
    def h(label: str) -> float:
        base, novel = SCORES[label]
        return harmonic_mean((base + 0.5) / 0.4, (novel + 0.5) / 0.4)

    row = average(frame, "weight", "10")
    assert row.h == pytest.approx(h("weight_10"))
    assert row.h_vs_default == pytest.approx(h("weight_10") - h("plain"))
    assert row.h_vs_zero_shot == pytest.approx(h("weight_10") - h("zero_shot"))
    assert row.gain_per_kb == pytest.approx((h("weight_10") - h("zero_shot")) / 40)
    assert average(frame, "words", "4").h_vs_default == pytest.approx(h("context_4") - h("context"))
    assert average(frame, "weight", "8").h_vs_default == 0
    assert math.isnan(average(frame, "beside", "zero_shot").gain_per_kb)


def test_the_files_are_written_whole_and_the_same_twice(tmp_path: Path) -> None:
    some = outcomes()
    write(tmp_path / "in", some)
    suite = [f"dataset {number}" for number in range(11)]

    def written(name: str) -> dict[str, bytes]:
        board = write_study(study(), tmp_path / "in", tmp_path / name, planned(some), suite, "A note of the suite.")
        assert sorted(board.files) == FILES
        return {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}

    first = written("out")
    assert sorted(first) == FILES
    assert first == written("again")
    page = first["study.md"].decode()
    assert page.startswith("# Which parts\n\nDo they matter?\n\n## ")
    assert page.count(SCOPE) == 4, "every table says what it stands on"
    assert "A note of the suite." in page
    check_structure(first["study.tex"].decode())
    assert " ".join(first["study.tex"].decode().split()).count("one seed (1)") == 4
    rows = list(csv.DictReader(first["study.csv"].decode().splitlines()))
    assert len(rows) == 10 * 3
    assert rows[0]["study"] == "parts"
    assert re.fullmatch(r"\d\d\.\d\d", rows[0]["h"])


def test_the_best_of_each_axis_is_bold_and_a_frozen_row_never(tmp_path: Path) -> None:
    some = outcomes()
    write(tmp_path, some)
    board = write_study(study(), tmp_path, tmp_path / "out", planned(some))
    lines = (tmp_path / "out/study.md").read_text().splitlines()
    summary = {line.split("|")[1].strip(): line for line in lines if line.count("|") > 12}
    assert "**81.25**" in summary["10"].split("|")[3]
    assert "**" not in summary["0.5"]
    assert "**" not in summary["coop †"]
    assert "<ins>" not in summary["16 (default) †"]
    assert any("† answers zero-shot on novel classes: not ranked" in line for line in lines)
    assert [section.title for section in board.sections] == [
        "The defaults and what stands beside", "weight, around plain", "family, around plain", "words, around context",
    ]  # fmt: skip


def test_what_is_missing_is_a_dash_and_counted(tmp_path: Path) -> None:
    some = [one for one in outcomes() if one["cell"]["recipe"] != "weight_10"]
    lost = some.pop(0)
    write(tmp_path, some)
    frame = study_frame(study(), tmp_path, planned([*some, lost]))
    row = average(frame, "weight", "10")
    assert (row.cells, row.cells_expected) == (0, 2)
    assert math.isnan(row.h)
    assert (average(frame, "weight", "8").cells, average(frame, "family", "coop").cells) == (1, 2)
    assert math.isnan(average(frame, "weight", "0.5").h_vs_default), "no default, no difference"
    assert math.isnan(standard_error(study(), frame))
    (section,) = [section for section in study_sections(study(), frame, "") if section.title.startswith("weight")]
    assert [line.entries[1].text for line in section.summary.lines] == ["2/2", "1/2", "0/2"]
    study_figures(study(), frame, "")


def test_other_recipes_seeds_and_datasets_do_not_count(tmp_path: Path) -> None:
    some = outcomes()
    others = [*outcomes({"clipfit": (1, 1)}), *outcomes({"plain": (1, 1)}, seed=2)]
    others += [*outcomes({"plain": (1, 1)}, shots=4), *outcomes({"plain": (1, 1)}, dataset="ucf101")]
    write(tmp_path, [*some, *others])
    frame = study_frame(study(), tmp_path, planned(some))
    assert set(frame.recipe) == set(SCORES)
    assert set(frame.seeds) == {"1"}
    assert average(frame, "weight", "8").base == pytest.approx(30.5 / 0.4)


def test_no_record_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="there is no record of study parts"):
        study_frame(study(), tmp_path, [])


def test_the_scope_says_datasets_shots_and_seeds() -> None:
    assert scope_of(study(), 11) == SCOPE + ", so no spread is known."
    several = study(seeds=[1, 2], datasets=["dtd"], protocol="few_shot")
    assert scope_of(several, 1) == "Suite mini, few-shot, all classes, 2 shots; dataset dtd; seeds 1, 2."


def test_the_standard_error_against_draws_of_test_images(frame: pd.DataFrame) -> None:
    """Each test image is right with the probability that was measured; H of the averages over 40,000 worlds."""
    generator = np.random.default_rng(0)
    base, novel = (
        np.mean([generator.binomial(40, (right + place) / 40, 40_000) / 0.4 for place in range(2)], axis=0)
        for right in SCORES["plain"]
    )
    h = 2 * base * novel / (base + novel)
    assert standard_error(study(), frame) == pytest.approx(float(h.std()), rel=0.02)


def test_few_shot_has_accuracy_alone(tmp_path: Path) -> None:
    some = outcomes(protocol="few_shot")
    write(tmp_path, some)
    own = study(protocol="few_shot")
    frame = study_frame(own, tmp_path, planned(some))
    assert average(frame, "weight", "10").h_vs_default == pytest.approx(2 / 0.4)
    sections = study_sections(own, frame, "")
    assert "Accuracy" in sections[1].summary.heads
    assert "Novel" not in sections[1].summary.heads
    study_figures(own, frame, "")


def test_figures_have_a_panel_per_axis_and_a_band_at_the_default(frame: pd.DataFrame) -> None:
    drawn = study_figures(study(), frame, "the scope")
    assert set(drawn) == {"accuracy_vs_share", "axes"}
    panels = drawn["axes"].axes
    assert [axes.get_title() for axes in panels] == ["weight", "family", "words"]
    assert [tick.get_text() for tick in panels[0].get_xticklabels()] == ["0.5", "8", "10"]
    lines = {line.get_label(): list(line.get_ydata()) for line in panels[0].lines}
    assert lines["Base"] == [28.5 / 0.4, 30.5 / 0.4, 32.5 / 0.4]
    assert {"Novel", "H", "zero-shot H"} <= set(lines)
    assert "the scope" in drawn["axes"].get_suptitle()
    assert "the scope" in drawn["accuracy_vs_share"].axes[0].get_title()
    for figure in drawn.values():
        figure.canvas.draw()
        pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)  # type: ignore[attr-defined]
        assert np.ptp(pixels, axis=-1).max() == 0, "readable in grey"


def test_at_several_numbers_of_shots_each_has_its_tables_and_there_are_learning_curves(tmp_path: Path) -> None:
    several = study(shots=[2, 1], protocol="few_shot")
    assert (several.shots, several.request().all_shots) == ((1, 2), (1, 2))
    some = outcomes(protocol="few_shot") + outcomes(
        {label: (base - 5, novel) for label, (base, novel) in SCORES.items()}, protocol="few_shot", shots=1
    )
    write(tmp_path, some)
    board = write_study(several, tmp_path, tmp_path / "out", planned(some))
    axes = 1 + len(several.axes)
    titles = [section.title for section in board.sections]
    assert [title.rpartition(", ")[2] for title in titles] == ["1 shot"] * axes + ["2 shots"] * axes + ["2 shots"]
    assert titles[-1].endswith("setting paper, 1, 2 shots")
    assert {"learning_curves.pdf", "learning_curves.png"} <= set(board.files)
    frame = board.frame[board.frame.dataset == "average"]
    for shots in (1, 2):
        own = frame[(frame.shots == shots) & (frame.axis == "weight")].set_index("value")
        difference = own.loc["10", "accuracy"] - own.loc["8", "accuracy"]
        assert own.loc["10", "h_vs_default"] == pytest.approx(difference)
    assert scope_of(several, 11).startswith("Suite mini, few-shot, all classes, 1, 2 shots; ")


def test_a_transfer_is_shown_by_its_targets(tmp_path: Path) -> None:
    some = outcomes(protocol="cross_dataset", dataset="imagenet")[::2]
    for one in some:
        base, novel = one["splits"].values()
        one["splits"] = {"source": base, "eurosat": base, "dtd": novel}
    write(tmp_path, some)
    own = study(protocol="cross_dataset")
    frame = study_frame(own, tmp_path, planned(some))
    assert set(frame.dataset) == {"eurosat", "dtd", "average"}
    assert average(frame, "weight", "10").accuracy == pytest.approx((32 + 31) / 2 / 0.4)
    assert average(frame, "weight", "10").h_vs_default == pytest.approx((2 + 1) / 2 / 0.4)
    study_figures(own, frame, "")
    missing = study_frame(own, tmp_path, planned(some[:1]))
    assert average(missing, "weight", "8").cells == 2


def test_a_transfer_is_measured_on_all_but_its_source() -> None:
    own = study(protocol="cross_dataset", datasets=["dtd"])
    assert (own.trained, own.datasets) == (("imagenet",), ("dtd",))
    whole = study_from(
        {name: said for name, said in STUDY.items() if name != "datasets"} | {"protocol": own.protocol}, "x"
    )
    assert whole.datasets == tuple(name for name in load_suite("mini").datasets if name != "imagenet")
