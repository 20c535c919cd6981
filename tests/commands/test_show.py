"""`show record` and `show recipe`: what was computed, what would be, and where each setting comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from clipbench.commands import main
from clipbench.records.store import write_record
from tests.records.records import cell, failed, record

SHIPPED = str(Path(__file__).resolve().parents[2] / "results" / "mini" / "records" / "clipfit.jsonl.gz")
EARLIER = str(Path(__file__).resolve().parents[1] / "records" / "earlier" / "clipfit.jsonl.gz")  # of clipbench 0.1.0
Said = pytest.CaptureFixture[str]


def shown(capsys: Said, *words: str) -> str:
    assert main(["show", *words]) == 0
    return capsys.readouterr().out


def test_a_record_says_what_was_computed(tmp_path: Path, capsys: Said) -> None:
    provenance = {"variant": {"model.lr": 0.1}, "recipe_digest": "r" * 64, "versions": {"data": 3}}
    path = write_record(tmp_path, record(provenance=provenance, environment={"torch": "9.8.7", "threads": 4}))
    said = shown(capsys, "record", str(path))
    for text in (
        "clipfit on dtd, 16 shots, seed 1: CLIPFit", "base 75.00 %: 30 of 40 images, 5 classes that were trained on",
        "novel 50.00 %: 20 of 40 images, 5 classes that were not trained on", "H 60.00 %", "model.lr 0.1",
        "versions data 3", "torch 9.8.7", "threads 4", "Trained 4,608", "finished 2026-01-01T00:00:02",
    ):  # fmt: skip
        assert text in said, text
    data = json.loads(shown(capsys, "record", str(path), "--format", "json"))
    assert data["splits"]["base"]["correct"] == 30


def test_few_shot_and_failed_records(tmp_path: Path, capsys: Said) -> None:
    path = write_record(tmp_path, record(cell(protocol="few_shot")))
    said = shown(capsys, "record", str(path))
    assert "all 75.00 %" in said
    assert "H " not in said
    path = write_record(tmp_path, failed(message="the loss is\nnot finite"))
    assert r"none: the cell failed (MethodError: the loss is\nnot finite)" in shown(capsys, "record", str(path))


def test_the_shipped_records_are_shown(capsys: Said) -> None:
    assert len(shown(capsys, "record", SHIPPED).splitlines()) == 33
    one = shown(capsys, "record", SHIPPED, "--datasets", "dtd", "--seeds", "1")
    assert "base 92.08 %: 221 of 240 images" in one
    assert "of an earlier version" not in one
    assert "of an earlier version" in shown(capsys, "record", EARLIER)
    several = json.loads(shown(capsys, "record", SHIPPED, "--datasets", "dtd", "--format", "json"))
    assert [data["cell"]["seed"] for data in several] == [1, 2, 3]


def test_what_a_record_holds_is_shown_and_not_carried_out(tmp_path: Path, capsys: Said) -> None:
    evil = "\x1b[31m[red]\u202e\n"
    path = write_record(tmp_path, record(cell(recipe=evil, suite=evil), environment={"device": evil}, losses={evil: 1}))
    said = shown(capsys, "record", str(path))
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert r"\x1b[31m[red]\u202e\n" in said


def settings(capsys: Said, *words: str) -> dict[str, dict[str, Any]]:
    data = json.loads(shown(capsys, "recipe", *words, "--format", "json"))
    return {one["setting"]: one for one in data["settings"]}


def test_a_recipe_says_what_would_be_computed_and_where_each_setting_comes_from(capsys: Said) -> None:
    found = settings(capsys, "clipfit", "--suite", "clip11", "--dataset", "imagenet", "--set", "model.momentum=0.5")
    expected = {
        "model.lr": (0.002, "recipe clipfit"),
        "model.momentum": (0.5, "--set"),
        "model.backbone": ("ViT-B-16/openai", "suite clip11"),
        "trainer.max_epochs": (10, "recipe clipfit, for suite clip11, dataset food101 or imagenet"),
        "trainer.devices": (1, "bench"),
        "trainer.gradient_clip_val": (None, "default"),
        "data.shots": (16, "the cell"),
        "data.crop_scale": ([0.08, 1.0], "recipe clipfit"),
    }
    for name, (value, origin) in expected.items():
        assert (found[name]["value"], found[name]["from"]) == (value, origin), name
    assert found["trainer.max_epochs"]["source"] == "minglllli/CLIPFit@4dde049 README"


def test_the_settings_shown_are_those_of_the_plan(capsys: Said, tmp_path: Path) -> None:
    from clipbench.bench.plan import make_plan
    from clipbench.recipes.recipe import load_recipe
    from clipbench.recipes.request import Request
    from clipbench.recipes.suites import load_suite
    from clipbench.records.settings import flat

    request = Request((load_recipe("coop"),), load_suite("mini"), ("dtd",), (2,), 4, "few_shot")
    (planned,) = make_plan(request, tmp_path).cells
    words = ["--dataset", "dtd", "--seed", "2", "--shots", "4", "--protocol", "few_shot"]
    found = {name: one["value"] for name, one in settings(capsys, "coop", *words).items()}
    acts = dict(planned.provenance["augmentation"])
    assert {name: list(found[f"data.{name}"]) for name in ("crop_scale", "crop_ratio")} == {
        name: list(acts[name]) for name in ("crop_scale", "crop_ratio")
    }
    rest = {name: value for name, value in flat(planned.resolved).items() if not name.startswith("data.crop_")}
    assert rest.pop("weights") is None
    assert {name: found[name] for name in rest} == json.loads(json.dumps(rest))


def test_the_text_names_the_other_datasets_and_the_card(capsys: Said, tmp_path: Path) -> None:
    said = shown(capsys, "recipe", "clipfit", "--suite", "clip11", "--dataset", "dtd")
    assert "recipe clipfit, suite clip11, dataset dtd, protocol base_to_novel, shots 16, seed 1, setting paper" in said
    assert "other settings on" not in said
    assert "gradient_clip_val" not in said
    assert "other settings on caltech101, " in shown(capsys, "recipe", "clipfit", "--suite", "clip11")
    own = tmp_path / "mine.yaml"
    own.write_text(yaml.safe_dump({"model": {"class_path": "CoOp", "init_args": {"lr": 0.25}}}))
    said = shown(capsys, "recipe", str(own))
    assert "card mini/imagenet" in said
    assert any(line.split()[:2] == ["model.lr", "0.25"] for line in said.splitlines())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["record"], "show record FILE: name what to show"),
        (["recipe"], "show recipe NAME: name what to show"),
        (["params"], "show params NAME: name what to show"),
        (["record", "nothing.json"], "is not in"),
        (["record", "."], "is a folder"),
        (["record", SHIPPED, "--datasets", "dtt"], "did you mean 'dtd'"),
        (["record", SHIPPED, "--seeds", "1", "--shots", "4"], "show record takes no --shots"),
        (["params", "clipfit", "--suite", "mini"], "show params takes no --suite"),
        (["recipe", "clipfti"], "did you mean 'clipfit'"),
        (["recipe", "clipfit", "--dataset", "dtt"], "did you mean 'dtd'"),
        (["recipe", "clipfit", "--suite", "minn"], "did you mean 'mini'"),
        (["recipe", "clipfit", "--protocol", "few"], "unknown protocol 'few'"),
        (["recipe", "clipfit,coop"], "takes one recipe"),
        (["recipe", "clipfit", "--dataset", "dtd,ucf101"], "takes one recipe and one dataset"),
        (["recipe", "clipfit", "--backbone", "nope"], "'nope'"),
        (["recipe", "clipfit", "--shots", "0"], "--shots 0"),
        (["recipe", "clipfit", "--set", "model.lrr=1"], "did you mean 'lr'"),
        (["recipe", "clipfit", "--set", "model.backbone=x"], "--backbone"),
    ],
)
def test_a_wrong_call_is_one_sentence(words: list[str], said: str, capsys: Said) -> None:
    assert main(["show", *words]) in (1, 2)
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("dataset", ["imagenet", "dtd"])
def test_a_cell_of_a_transfer_is_named_by_its_source_or_a_target(dataset: str, capsys: Said) -> None:
    said = shown(capsys, "recipe", "maple", "--suite", "clip11", "--protocol", "cross_dataset", "--dataset", dataset)
    assert "suite clip11, dataset imagenet, protocol cross_dataset" in said
    assert any(line.split()[:2] == ["model.depth", "3"] for line in said.splitlines())
