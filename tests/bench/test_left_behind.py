"""What a bench left behind is what it says: spoilt weights are learned again, records that are gone are told."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from clipbench.bench import launchers
from clipbench.bench.run import Outcome
from clipbench.commands import main
from clipbench.records.store import comparable, read_record

GRID = ["--datasets", "dtd", "--seeds", "1", "--shots", "1", "--jobs", "1", "--results", "runs"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs/mini/base_to_novel"


def recipe(name: str, method: str, epochs: int, **arguments: object) -> None:
    content = {"model": {"class_path": method, "init_args": arguments}, "trainer": {"max_epochs": epochs}}
    Path(f"{name}.yaml").write_text(yaml.safe_dump(content))


def test_what_starts_from_spoilt_weights_waits_for_new_ones(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe("tuned", "CLIPFit", 1, lr=0.5)
    recipe("between", "WiSEFT", 0, start="tuned.yaml", alpha=1.0)
    assert main(["bench", "-m", "between.yaml", *GRID]) == 0
    before = {path.name: comparable(read_record(path)) for path in folder.glob("records/*.json")}
    assert len(before) == 2
    (weights,) = folder.glob("weights/tuned-*")
    content = weights.read_bytes()
    weights.write_bytes(bytes(len(content)))
    next(folder.glob("records/between-*")).unlink()
    capsys.readouterr()
    assert main(["bench", "-m", "between.yaml", *GRID]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "tuned on dtd, 1 shots, seed 1 is computed again: its learned weights 'tuned-dtd" in said
    assert weights.read_bytes() == content
    assert {path.name: comparable(read_record(path)) for path in folder.glob("records/*.json")} == before


def test_status_0_means_that_the_records_are_there(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_cell = launchers.run_cell

    def then_the_folder_goes(*words: object) -> Outcome:
        outcome = run_cell(*words)  # type: ignore[arg-type]
        shutil.rmtree("runs")
        return outcome

    monkeypatch.setattr(launchers, "run_cell", then_the_folder_goes)
    assert main(["bench", "-m", "zero_shot", *GRID]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "1 finished cells are gone from runs/mini/base_to_novel" in said
    assert "zero_shot on dtd, 1 shots, seed 1: no record yet" in said


@pytest.mark.parametrize("place", ["file", "file/below", "x" * 300, "loop", "loop/x"])
def test_a_place_where_no_results_can_be_is_refused_first(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").touch()
    Path("loop").symlink_to("loop")
    for more in ([], ["--dry-run"]):
        assert main(["bench", "-m", "zero_shot", *GRID, "--results", place, *more]) == 1
        captured = capsys.readouterr()
        assert captured.err.startswith("clipbench: cannot write 'records' in ")
        assert captured.err.endswith("name another place with --results\n")
        assert captured.err.count("\n") == 1
        assert captured.out == ""


def test_names_as_long_as_files_may_be(folder: Path) -> None:
    name = "r" * 120
    recipe(name, "CLIPFit", 1)
    Path("suite.yaml").write_text(f"name: {'s' * 100}\nbackbone: mini\ndatasets: {{{'d' * 100}: mini/dtd}}\n")
    words = [*GRID, "--datasets", "d" * 100, "--suite", "suite.yaml"]
    assert main(["bench", "-m", f"{name}.yaml", *words]) == 0
