"""`clipbench analyze` writes its files, does only what is missing, and says what is wrong."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from clipbench.analysis import features, runs
from clipbench.commands import main
from clipbench.errors import MethodError
from clipbench.report import drawing
from tests.analysis.conftest import SMALL

CHANGES = {"changes.csv", "by_tensor.csv", "summary.csv", "summary.txt", "changes.png", "changes.pdf"}
OVER_TRAINING = {"changes_over_training.png", "changes_over_training.pdf"}
FEATURES = {"features.csv", "features.png", "features.pdf", "summary.txt"}


def analyze(folder: Path, *words: str) -> int:
    return main(["analyze", *words, "--results", str(folder / "runs"), "--out", str(folder / "out"), *SMALL])


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_changes_of_a_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert analyze(tmp_path, "changes", "--config", "clipfit") == 0
    assert files(tmp_path / "out") == CHANGES | OVER_TRAINING
    said = capsys.readouterr().out
    assert "text MLP bias: 4 tensors, 1 cells" in said
    assert "image LayerNorm weight: 10 tensors" in said
    rows = table(tmp_path / "out" / "changes.csv")
    assert {row["recipe"] for row in rows} == {"clipfit"}
    assert {row["dataset"] for row in rows} == {"eurosat"}
    assert {row["step"] for row in rows} == {"0", "1"}
    before = (tmp_path / "out" / "changes.csv").read_bytes()

    def again(*_: object) -> None:
        raise AssertionError("fitted a second time")

    monkeypatch.setattr(runs, "fit_recorded", again)
    monkeypatch.setattr(drawing, "save_figure", lambda *_: {})
    assert analyze(tmp_path, "changes", "--config", "clipfit") == 0
    assert (tmp_path / "out" / "changes.csv").read_bytes() == before
    with pytest.raises(AssertionError, match="second time"):
        analyze(tmp_path, "changes", "--config", "clipfit", "--set", "model.lr=0.1")


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of the time of a small analysis."""
    monkeypatch.setattr(drawing, "save_figure", lambda *_: {})


@pytest.mark.usefixtures("undrawn")
def test_a_damaged_file_of_a_cell_is_made_again(tmp_path: Path) -> None:
    assert analyze(tmp_path, "changes", "--config", "clipfit") == 0
    kept = next((tmp_path / "out" / "cells").iterdir())
    whole = kept.read_text()
    kept.write_text("dataset,seed\n")
    assert analyze(tmp_path, "changes", "--config", "clipfit") == 0
    assert kept.read_text() == whole


def test_features_of_a_recipe_and_changes_and_features_of_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert analyze(tmp_path, "features", "--config", "clipfit") == 0
    assert files(tmp_path / "out") == FEATURES
    rows = table(tmp_path / "out" / "features.csv")
    assert len(rows) == 10
    assert all(0 < float(row["image_cosine"]) < 1 for row in rows)
    learned = next((tmp_path / "runs").rglob("*.safetensors"))
    end = ["--weights", str(learned), "--out", str(tmp_path / "end")]
    assert main(["analyze", "features", *end]) == 0
    assert [row | {"shots": ""} for row in rows] == table(tmp_path / "end" / "features.csv")
    assert main(["analyze", "changes", *end]) == 0
    assert files(tmp_path / "end") == CHANGES | FEATURES

    monkeypatch.setattr(drawing, "save_figure", lambda *_: {})
    assert analyze(tmp_path, "changes", "--config", "clipfit") == 0
    fitted = {row["tensor"]: row for row in table(tmp_path / "out" / "changes.csv") if row["step"] == row["steps"]}
    for row in table(tmp_path / "end" / "changes.csv"):
        assert row["sum_squares"] == fitted[row["tensor"]]["sum_squares"], "the fit is the bench's, to the bit"


@pytest.mark.usefixtures("undrawn")
def test_a_folder_that_cannot_be_written_is_that_of_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").touch()
    assert analyze(tmp_path, "changes", "--config", "clipfit") == 1
    assert "name another place with --out\n" in "".join(capsys.readouterr())


def test_a_cell_that_fails_is_said_and_the_status_is_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = runs.fit_recorded

    def fails_on_dtd(planned: object, *rest: object) -> object:
        if planned.cell.dataset == "dtd":  # type: ignore[attr-defined]
            raise MethodError("the loss is not finite")
        return fit(planned, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(runs, "fit_recorded", fails_on_dtd)
    words = ["--results", str(tmp_path / "runs"), "--out", str(tmp_path / "out"), *SMALL[2:]]
    assert main(["analyze", "changes", "--config", "clipfit", "--datasets", "dtd,eurosat", *words]) == 1
    said = capsys.readouterr().out
    assert "FAILED" in said
    assert "the loss is not finite" in said
    assert {row["dataset"] for row in table(tmp_path / "out" / "changes.csv")} == {"eurosat"}


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["changes"], 2, "--config"),
        (["shapes", "--config", "clipfit"], 2, "invalid choice"),
        (["changes", "--config", "clipfti"], 2, "did you mean 'clipfit'"),
        (["changes", "--config", "clipfit", "--every", "0"], 2, "--every 0"),
        (["changes", "--config", "zero_shot"], 2, "nothing to record"),
        (["changes", "--config", "linear_probe"], 2, "solved without steps"),
        (["changes", "--config", "clipfit", "--weights", "x"], 2, "not allowed"),
        (["changes", "--weights", "missing.safetensors"], 1, "missing.safetensors"),
        (["features", "--weights", "missing.safetensors"], 1, "missing.safetensors"),
    ],
)
def test_a_wrong_call_is_told_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], status: int, said: str
) -> None:
    small = [word for word in SMALL if not (words[-2:] == ["--every", "0"] and word in ("--every", "2"))]
    small = small if words[-2:] != ["--every", "0"] else ["--datasets", "eurosat", "--seeds", "1"]
    assert main(["analyze", *words, "--results", str(tmp_path), "--out", str(tmp_path / "out"), *small]) == status
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out" / "changes.csv").exists()


def test_columns_are_documented() -> None:
    from clipbench.analysis.recorder import COLUMNS
    from clipbench.analysis.summary import SUMMARY_COLUMNS

    page = (Path(__file__).resolve().parents[2] / "docs" / "analysis.md").read_text()
    for name in (*runs.IDENTITY, *COLUMNS, *SUMMARY_COLUMNS, *features.COLUMNS):
        assert f"`{name}`" in page, name
