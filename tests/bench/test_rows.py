"""A row of the table is what was computed: whatever differs stands apart, under a name that says so."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import yaml

from clipbench.commands import main
from clipbench.records.store import RecordStore
from clipbench.testing.folders import suite_of_folder

PLACE = "mini/base_to_novel"
GRID = ["--datasets", "dtd", "--shots", "1", "--jobs", "1", "--results", "runs"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def bench(*words: str, seed: int = 1) -> int:
    return main(["bench", *words, "--seeds", str(seed), *GRID])


def rows(folder: Path, dataset: str = "dtd") -> dict[tuple[str, str], dict[str, str]]:
    """Recipe and variant to the row of a dataset."""
    (file,) = (folder / "runs").rglob("leaderboard.csv")
    with file.open(newline="") as lines:
        found = [row for row in csv.DictReader(lines) if row["dataset"] == dataset]
    named = {(row["recipe"], row["variant"]): row for row in found}
    assert len(named) == len(found)
    return named


def recipe(path: Path, method: str = "ZeroShot", **arguments: Any) -> str:
    content = {"model": {"class_path": method, "init_args": arguments}, "trainer": {"max_epochs": 0}}
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_a_file_named_like_a_packaged_recipe_has_a_row_of_its_own(folder: Path) -> None:
    assert bench("--method", "zero_shot") == 0
    assert bench("--method", recipe(folder / "own/zero_shot.yaml", template_set="single"), seed=2) == 0
    found = rows(folder)
    assert {key: row["seeds"] for key, row in found.items()} == {
        ("zero_shot", ""): "1", ("zero_shot", "model.template_set single"): "2",
    }  # fmt: skip


def test_two_versions_of_a_file_have_rows_of_their_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("--method", recipe(folder / "mine.yaml", template_set="single")) == 0
    assert bench("--method", recipe(folder / "mine.yaml", template_set="coop"), seed=2) == 0
    found = rows(folder)
    assert sorted(row["seeds"] for row in found.values()) == ["1", "2"]
    assert found["mine", ""]["seeds"] == "2", "what was asked for last is what the others are told apart from"
    assert "mine: 2 rows, which are kept apart by recipe" in capsys.readouterr().out


def test_another_dataset_under_a_key_has_a_row_of_its_own(folder: Path) -> None:
    suite = {"name": "mini", "backbone": "mini", "datasets": {"dtd": "mini/eurosat"}}
    (folder / "own.yaml").write_text(yaml.safe_dump(suite))
    assert bench("--method", "zero_shot") == 0
    assert bench("--method", "zero_shot", "--suite", "own.yaml", seed=2) == 0
    assert sorted(row["seeds"] for row in rows(folder).values()) == ["1", "2"]
    stated = {one.cell.seed: "suite_digest" in one.provenance for one in RecordStore(folder / "runs" / PLACE).all()}
    assert stated == {1: False, 2: True}, "what no other suite of that name may be compared with says so"


@pytest.mark.parametrize("part", ["test", "train"])
def test_seeds_share_no_row_once_images_of_ones_own_were_exchanged(folder: Path, part: str) -> None:
    """Paths and labels, and with them the split, stay as they were; what is measured, or drawn from, does not."""

    def measure(seeds: str) -> list[str]:
        words = ["--suite", "own.yaml", "--shots", "1", "--jobs", "1", "--results", "runs", "--seeds", seeds]
        assert main(["bench", "--method", "zero_shot", *words]) == 0
        return sorted(row["seeds"] for row in rows(folder, "shapes").values())

    suite_of_folder(folder / "images", "mini")
    own = {"class_path": "ImageFolder", "init_args": {"root": "images"}}
    (folder / "own.yaml").write_text(yaml.safe_dump({"name": "own", "backbone": "mini", "datasets": {"shapes": own}}))
    assert measure("1,2") == ["1,2"]
    first, second, *_ = sorted((folder / "images" / part).iterdir())
    first.rename(folder / "aside")
    second.rename(first)
    (folder / "aside").rename(second)
    assert measure("3") == ["1,2", "3"]


def test_seeds_share_no_row_once_a_suite_says_other_things_of_a_dataset(folder: Path) -> None:
    suite_of_folder(folder / "images", "mini")
    for seed, more in enumerate(({}, {"crop_scale": [0.9, 1.0]}, {"template": "a texture of a {}."}, {}), 1):
        own = {"class_path": "ImageFolder", "init_args": {"root": "images", **more}}
        content = {"name": "own", "backbone": "mini", "datasets": {"shapes": own}}
        (folder / "own.yaml").write_text(yaml.safe_dump(content))
        words = ["--suite", "own.yaml", "--shots", "1", "--jobs", "1", "--results", "runs", "--seeds", str(seed)]
        assert main(["bench", "--method", "zero_shot", *words]) == 0
    found = {row["variant"]: row["seeds"] for row in rows(folder, "shapes").values()}
    assert found.pop("") == "1,4"
    assert sorted(found.values()) == ["2", "3"]
    assert all(name.startswith("data ") for name in found)


def test_a_recipe_that_states_a_default_finds_its_finished_cells(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("--method", recipe(folder / "mine.yaml")) == 0
    assert bench("--method", recipe(folder / "mine.yaml", template_set="coop")) == 0
    said = capsys.readouterr().out
    assert "1 done already" in said
    assert {key: row["cells"] for key, row in rows(folder).items()} == {("mine", ""): "1"}


STOPS = """
import lightning as L
class StopsAtOnce(L.Callback):
    def on_train_start(self, trainer, method):
        trainer.should_stop = True
"""


def test_a_fit_that_took_no_step_has_no_accuracy(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "stops_at_once.py").write_text(STOPS)
    monkeypatch.syspath_prepend(folder)
    callbacks = "trainer.callbacks=[{class_path: stops_at_once.StopsAtOnce}]"
    assert bench("--method", "clipfit", "--set", callbacks) == 1
    assert "nothing was learned" in capsys.readouterr().out
    assert not list((folder / "runs").rglob("*.safetensors"))


def test_two_values_of_a_setting_stand_side_by_side(folder: Path) -> None:
    for templates in ("single", "coop", "clipfit"):  # coop is the recipe's own
        assert bench("--method", "zero_shot", "--set", f"model.template_set={templates}") == 0
    assert set(rows(folder)) == {
        ("zero_shot", ""), ("zero_shot", "model.template_set clipfit"), ("zero_shot", "model.template_set single"),
    }  # fmt: skip
    assert all(row["seeds"] == "1" for row in rows(folder).values())


def test_what_is_the_recipes_own_value_is_no_variant(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("--method", "zero_shot") == 0
    assert bench("--method", "zero_shot", "--set", "model.template_set=coop") == 0
    assert "1 done already" in capsys.readouterr().out
    assert list(rows(folder)) == [("zero_shot", "")]


def test_a_partial_grid_has_its_average(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--method", "zero_shot", "--seeds", "1", "--shots", "1", "--jobs", "1", "--results", "runs"]
    assert main(["bench", *words, "--datasets", "dtd,eurosat"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Average over 2 datasets of the suite's 11: dtd, eurosat" in printed
    average = rows(folder, "average")["zero_shot", ""]
    assert (average["averaged"], average["cells"], average["cells_expected"]) == ("2/11", "2", "2")
    single = [float(rows(folder, name)["zero_shot", ""]["base"]) for name in ("dtd", "eurosat")]
    assert float(average["base"]) == pytest.approx(sum(single) / 2, abs=0.01)

    assert main(["bench", *words]) == 0
    capsys.readouterr()
    assert main(["bench", *words, "--datasets", "dtd"]) == 0
    assert "Average over 1 dataset of the suite's 11: dtd" in capsys.readouterr().out
    assert rows(folder, "average")["zero_shot", ""]["averaged"] == "11/11", "the file keeps the suite's average"
    assert (
        main(["table", "--results", "runs", "--datasets", "dtd,eurosat", "--format", "csv", "--output", "t.csv"]) == 0
    )
    assert ",average," in (folder / "t.csv").read_text()
    assert ",2/11," in (folder / "t.csv").read_text()
    assert main(["table", "--results", "runs", "--datasets", "dtdd"]) == 2
    assert "did you mean 'dtd'" in capsys.readouterr().err
    assert main(["table", "--results", "runs", "--datasets", "dtd", "--compare", "published"]) == 2
    assert "leave out --datasets" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../../evil", "/abs", "..", "a/b", "", "x" * 300, ".hidden", "a\nb"])
def test_the_name_of_a_suite_stays_inside(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for suite in (
        {"name": name, "backbone": "mini", "datasets": {"dtd": "mini/dtd"}},
        {"name": "mine", "backbone": "mini", "datasets": {name: "mini/dtd"}},
    ):
        (folder / "s.yaml").write_text(yaml.safe_dump(suite))
        assert main(["bench", "--suite", "s.yaml", "--method", "zero_shot", "--seeds", "1", "--results", "runs"]) == 2
        assert "'s.yaml' is not a suite" in capsys.readouterr().err
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    "setting",
    [
        "trainer.limit_test_batches=1", "trainer.limit_train_batches=0.0", "trainer.limit_train_batches=1",
        "trainer.overfit_batches=1", "trainer.fast_dev_run=true", "trainer.max_steps=0", "trainer.max_epochs=0",
        "ckpt_path=x", "weights=x",
    ],
)  # fmt: skip
@pytest.mark.parametrize("by", ["--set", "--config"])
def test_a_part_of_a_run_is_no_cell(setting: str, by: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [by, setting]
    if by == "--config":
        key, _, value = setting.partition("=")
        section, _, name = key.partition(".")
        content = {section: {name: yaml.safe_load(value)}} if name else {key: value}
        (folder / "c.yaml").write_text(yaml.safe_dump(content))
        words = ["--config", "c.yaml"]
    assert bench("--method", "coop", *words) == 2
    said = capsys.readouterr().err
    assert setting.partition("=")[0] in said
    assert "a bench cell is a whole run" in said
    assert bench("--method", "coop", "--dry-run", "--set", "trainer.limit_test_batches=1.0") == 0, "the whole"


def test_a_table_whose_file_cannot_be_written_is_printed_and_the_status_is_1(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = folder / "runs" / "mini" / "base_to_novel" / "leaderboard.csv"
    (place / "kept").mkdir(parents=True)
    assert bench("--method", "zero_shot") == 1
    said = capsys.readouterr()
    assert "Average over 1 dataset" in said.out
    assert "leaderboard.md" in said.out
    (line,) = said.err.splitlines()
    assert line.startswith(
        "clipbench: cannot write 'leaderboard.csv' in runs/mini/base_to_novel: a folder stands there"
    )
    assert (place / "kept").is_dir()
    assert list(place.parent.glob("records/*.json")), "the work is kept"
