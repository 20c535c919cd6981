"""cross_dataset as one types it: one training on the source, a row for each target, and their average without it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from clipbench.bench.acting import suite_digest
from clipbench.bench.plan import make_plan
from clipbench.commands import main
from clipbench.data.cards import load_card
from clipbench.data.sources import card_source
from clipbench.mini.images import load_images
from clipbench.recipes.recipe import load_recipe
from clipbench.recipes.request import Request
from clipbench.recipes.suites import load_suite

SMALL = ["--protocol", "cross_dataset", "--shots", "1", "--jobs", "1", "--seeds", "1"]


def bench(folder: Path, *words: str) -> int:
    return main(["bench", *SMALL, "--results", str(folder), *words])


def rows(folder: Path, recipe: str) -> dict[str, dict[str, str]]:
    with (folder / "mini/cross_dataset/leaderboard.csv").open(newline="") as lines:
        return {row["dataset"]: row for row in csv.DictReader(lines) if row["recipe"] == recipe}


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transfer")
    assert bench(folder, "-m", "zero_shot,linear_probe", "--datasets", "dtd,eurosat,oxford_pets") == 0
    return folder


def record_of(folder: Path, recipe: str) -> dict[str, dict[str, dict[str, object]]]:
    (path,) = (folder / "mini/cross_dataset/records").glob(f"*{recipe}*.json")
    return json.loads(path.read_text())


def test_a_row_for_each_target_and_their_average_without_the_source(computed: Path) -> None:
    for recipe in ("zero_shot", "linear_probe"):
        record, found = record_of(computed, recipe), rows(computed, recipe)
        assert record["cell"]["dataset"] == "imagenet"
        assert list(record["splits"]) == ["source", "oxford_pets", "dtd", "eurosat"]
        shares = {name: 100 * split["correct"] / split["total"] for name, split in record["splits"].items()}
        for name in ("oxford_pets", "dtd", "eurosat"):
            assert float(found[name]["accuracy"]) == pytest.approx(shares[name], abs=0.006)
            assert found[name]["base"] == ""
        mean = sum(shares[name] for name in ("oxford_pets", "dtd", "eurosat")) / 3
        assert float(found["average"]["accuracy"]) == pytest.approx(mean, abs=0.006)
        assert found["average"]["averaged"] == "3/10"
        assert "joint" not in record


def test_heads_of_the_source_alone_leave_the_targets_to_zero_shot(computed: Path) -> None:
    probe, zero_shot = (record_of(computed, name)["splits"] for name in ("linear_probe", "zero_shot"))
    assert probe["source"]["bitmap"] != zero_shot["source"]["bitmap"]
    for name in ("dtd", "eurosat", "oxford_pets"):
        assert probe[name]["bitmap"] == zero_shot[name]["bitmap"]
        assert probe[name]["novel_rule"] == "frozen"


def test_zero_shot_on_a_target_is_zero_shot_there(computed: Path, tmp_path: Path) -> None:
    assert main(["bench", "-m", "zero_shot", "--protocol", "few_shot", "--datasets", "dtd", *SMALL[2:], "--results",
                 str(tmp_path)]) == 0  # fmt: skip
    (path,) = tmp_path.rglob("records/*.json")
    assert (
        json.loads(path.read_text())["splits"]["all"]["bitmap"]
        == (record_of(computed, "zero_shot")["splits"]["dtd"]["bitmap"])
    )


def test_a_partial_table_averages_over_its_targets(computed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["table", "--suite", "mini", "--protocol", "cross_dataset", "--results", str(computed), "--format", "csv"]
    assert main([*words, "--datasets", "dtd,eurosat"]) == 0
    found = [row for row in csv.DictReader(capsys.readouterr().out.splitlines()) if row["recipe"] == "zero_shot"]
    assert [row["dataset"] for row in found] == ["dtd", "eurosat", "average"]
    average = found[-1]
    targets = [float(row["accuracy"]) for row in found if row["dataset"] in ("dtd", "eurosat")]
    assert len(targets) == 2
    assert float(average["accuracy"]) == pytest.approx(sum(targets) / 2, abs=0.006)
    assert average["averaged"] == "2/10"
    assert main([*words, "--datasets", "dtd,imagenet"]) == 2
    assert "'imagenet' is trained on, which counts in no average: --datasets names targets" in capsys.readouterr().err


def test_the_same_call_finds_it_done(computed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(computed, "-m", "zero_shot,linear_probe", "--datasets", "dtd,eurosat,oxford_pets", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "2 done already" in said
    assert "tested on: " in said
    assert all(name in said.partition("tested on: ")[2].splitlines()[0] for name in ("dtd", "eurosat", "oxford_pets"))


def test_its_record_can_be_computed_again(computed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = (computed / "mini/cross_dataset/records").glob("*zero_shot*.json")
    assert main(["bench", "--record", str(path), "--results", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.count("the same, image by image") == 4
    assert "equal: zero_shot on imagenet" in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--datasets", "dtd,imagenet"], "'imagenet' is the source of suite mini: --datasets names targets"),
        (["--datasets", "nosuch"], "dataset of suite mini"),
        (["--suite", "none.yaml"], "suite none names no source"),
        (["--suite", "twice.yaml"], "'again' is trained on as 'mini/imagenet'"),
        (["--suite", "alone.yaml"], "suite alone has no dataset beside its source, 'imagenet'"),
    ],
)
def test_what_is_no_transfer_is_a_sentence(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    suites = {
        "none": {"datasets": {"a": "mini/imagenet", "b": "mini/dtd"}},
        "twice": {"source": "imagenet", "datasets": {"imagenet": "mini/imagenet", "again": "mini/imagenet"}},
        "alone": {"source": "imagenet", "datasets": {"imagenet": "mini/imagenet"}},
    }
    for name, content in suites.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"name": name, "backbone": "mini", **content}))
    assert bench(tmp_path / "runs", "-m", "zero_shot", *words) == 2
    assert says in " ".join(capsys.readouterr().err.split())


def test_a_target_without_data_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-m", "zero_shot", "--suite", "clip11", "--backbone", "mini", "--datasets", "dtd,eurosat"]
    assert bench(tmp_path, *words, "--root", str(tmp_path), "--dry-run") == 1
    said = capsys.readouterr().err
    assert all(name in said for name in ("imagenet", "dtd", "eurosat"))


def test_what_is_measured_on_more_targets_is_done_for_fewer(computed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted((computed / "mini/cross_dataset/records").iterdir())
    assert bench(computed, "-m", "zero_shot,linear_probe", "--datasets", "eurosat") == 0
    assert "2 done already" in capsys.readouterr().out
    assert sorted((computed / "mini/cross_dataset/records").iterdir()) == before
    shown = rows(computed, "zero_shot")
    assert {name for name, row in shown.items() if row["cells"] == "1"} == {"eurosat", "average"}
    assert shown["average"]["accuracy"] == shown["eurosat"]["accuracy"]


def test_a_record_of_few_targets_is_computed_again_beside_one_of_more(
    computed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(tmp_path, "-m", "zero_shot", "--datasets", "dtd") == 0
    (path,) = (tmp_path / "mini/cross_dataset/records").glob("*.json")
    copied = tmp_path / "copy"
    shutil.copytree(computed, copied)
    assert main(["bench", "--record", str(path), "--results", str(copied)]) == 0
    assert "equal: zero_shot on imagenet" in capsys.readouterr().out


def test_targets_of_two_calls_stand_in_one_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for target in ("dtd", "eurosat"):
        assert bench(tmp_path, "-m", "zero_shot", "--datasets", target) == 0
    capsys.readouterr()
    words = ["table", "--protocol", "cross_dataset", "--results", str(tmp_path), "--format", "csv"]
    assert main([*words, "--datasets", "dtd,eurosat"]) == 0
    shown = capsys.readouterr()
    average = [row for row in csv.DictReader(shown.out.splitlines()) if row["dataset"] == "average"]
    assert [row["averaged"] for row in average if row["accuracy"]] == ["2/10"]
    assert "several keys" not in shown.err
    assert main(words) == 0
    assert "averages over what is there: --datasets dtd,eurosat\n" in capsys.readouterr().err  # and not its source


def test_folders_of_ones_own_are_source_and_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for card in ("eurosat", "dtd"):
        write_images(tmp_path / card, f"mini/{card}")
    folders = {
        name: {"class_path": "ImageFolder", "init_args": {"root": name, "template": load_card(f"mini/{name}").template}}
        for name in ("eurosat", "dtd")
    }
    suite = {"name": "photos", "backbone": "mini", "source": "eurosat", "datasets": {**folders, "food": "mini/food101"}}
    Path("photos.yaml").write_text(yaml.safe_dump(suite))
    assert bench(tmp_path / "runs", "-m", "zero_shot", "--suite", "photos.yaml") == 0
    (path,) = (tmp_path / "runs/photos/cross_dataset/records").glob("*.json")
    record = json.loads(path.read_text())
    assert list(record["splits"]) == ["source", "dtd", "food"]
    for name in ("dtd", "food"):
        few_shot = ["bench", "--protocol", "few_shot", *SMALL[2:], "--results", str(tmp_path / "runs")]
        assert main([*few_shot, "-m", "zero_shot", "--suite", "photos.yaml", "--datasets", name]) == 0
        (alone,) = (tmp_path / "runs/photos/few_shot/records").glob(f"*-{name}-*.json")
        assert json.loads(alone.read_text())["splits"]["all"]["bitmap"] == record["splits"][name]["bitmap"]
    assert main(["bench", "--record", str(path)]) == 0


def write_images(folder: Path, card: str, images: int = 2) -> None:
    """A few images of each class of a rendered dataset as files."""
    names = load_card(card).classnames
    for part in ("train", "test"):
        seen = dict.fromkeys(range(len(names)), 0)
        for item, pixels in zip(card_source(card).split.part(part), load_images(card, part), strict=True):
            if seen[item.label] < images:
                seen[item.label] += 1
                (folder / part / names[item.label]).mkdir(parents=True, exist_ok=True)
                array = np.moveaxis(np.asarray(pixels), 0, -1) if pixels.shape[0] == 3 else np.asarray(pixels)
                Image.fromarray(array).save(folder / part / names[item.label] / f"{seen[item.label]}.png")


@pytest.mark.parametrize(("source", "hint"), [("imagenet", True), ("gone", False)])
def test_what_goes_on_without_a_target_is_said_and_nothing_without_a_source(
    source: str, hint: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = {"class_path": "ImageFolder", "init_args": {"root": "gone"}}
    datasets = {"imagenet": "mini/imagenet", "dtd": "mini/dtd", "gone": gone}
    suite = {"name": "some", "backbone": "mini", "source": source, "datasets": datasets}
    (tmp_path / "some.yaml").write_text(yaml.safe_dump(suite))
    words = ["-m", "zero_shot", "--suite", str(tmp_path / "some.yaml")]
    assert bench(tmp_path, *words) == 1
    said = capsys.readouterr().err
    assert "there is no folder" in said
    assert ("the data of dtd are there: --datasets dtd" in said) == hint
    assert "data status" not in said  # there is nothing to get for a folder of one's own


def test_another_card_in_the_place_of_a_target_is_said_beside_published_rows(tmp_path: Path) -> None:
    packaged = load_suite("mini")
    (tmp_path / "mine.yaml").write_text(
        yaml.safe_dump(
            {
                "name": "mini", "backbone": "mini", "source": "imagenet",
                "datasets": {"imagenet": "mini/imagenet", "dtd": "mini/food101", "eurosat": "mini/eurosat"},
            }
        )
    )  # fmt: skip
    mine = load_suite(str(tmp_path / "mine.yaml"))
    assert suite_digest(packaged, "imagenet", ["dtd"]) == suite_digest(mine, "imagenet", ["eurosat"]) == {}
    assert suite_digest(mine, "imagenet", ["dtd", "eurosat"])


def test_the_sentences_of_a_target_stand_in_the_key(tmp_path: Path) -> None:
    keys = []
    for template in ("a photo of a {}.", "a {} texture."):
        write_images(tmp_path / "dtd", "mini/dtd", 1)
        dtd = {"class_path": "ImageFolder", "init_args": {"root": "dtd", "template": template}}
        suite = {"name": "own", "backbone": "mini", "source": "a", "datasets": {"a": "mini/eurosat", "dtd": dtd}}
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(suite))
        own = load_suite(str(tmp_path / "own.yaml"))
        request = Request((load_recipe("zero_shot"),), own, seeds=(1,), shots=1, protocol="cross_dataset")
        (planned,) = make_plan(request, tmp_path / "runs").cells
        assert planned.provenance["targets"]["dtd"]["templates"] == [template]
        keys.append(planned.key)
    assert keys[0] != keys[1]
