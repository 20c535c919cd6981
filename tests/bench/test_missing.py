"""What is missing or wrong is told at once and before any work: data, weights, recipes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from clipbench.backbone import load
from clipbench.bench import identity, plan
from clipbench.commands import main
from clipbench.recipes.recipe import known_recipes
from clipbench.recipes.suites import load_suite
from clipbench.testing.folders import suite_of_folder

WEIGHTS = "the weights of backbone 'ViT-B-16/openai' are not on this machine"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is cached, and whoever fetches fails the test."""

    def fetch(*_: object) -> Path:
        raise AssertionError("fetched")

    monkeypatch.setattr(load, "_in_caches", lambda _: None)
    monkeypatch.setattr(load, "_fetch", fetch)


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_data_and_weights_that_are_missing_are_named_at_once(
    more: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "-m", "zero_shot", "--suite", "clip11", "--root", "no", *more]) == 1
    said = capsys.readouterr().err
    for dataset in load_suite("clip11").datasets:
        assert f"\n{dataset} (" in said.replace("clipbench: ", "\n")
    assert WEIGHTS in said
    assert "clipbench data status imagenet ..." in said
    assert len(said.splitlines()) < 40
    assert not list(folder.iterdir())


def photos(folder: Path, backbone: str) -> str:
    suite_of_folder(folder / "images", "mini")
    there = {"class_path": "ImageFolder", "init_args": {"root": "images"}}
    content = {"name": "mine", "backbone": backbone, "datasets": {"photos": there, "dtd": "dtd", "pets": "oxford_pets"}}
    (folder / "suite.yaml").write_text(yaml.safe_dump(content))
    return "suite.yaml"


def test_a_suite_whose_data_is_partly_there_says_which_to_name(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", "-m", "zero_shot", "--suite", photos(folder, "mini"), "--root", "no", "--dry-run"]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert said.splitlines()[-1] == "the data of photos are there: --datasets photos"
    assert main([*words, "--datasets", "photos", "--seeds", "1"]) == 0


def test_a_dry_run_plans_without_weights_and_says_that_they_are_missing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", "-m", "clipfit", "--suite", photos(folder, "ViT-B-16/openai"), "--datasets", "photos"]
    assert main([*words, "--seeds", "1,2", "--dry-run"]) == 1
    captured = capsys.readouterr()
    assert captured.out.count("key unknown") == 2
    assert "2 of 2 cells to run" in captured.out
    assert captured.err.startswith(f"clipbench: {WEIGHTS}")


def test_damaged_weights_are_told_with_the_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "x.safetensors").write_bytes(b"no tensors")
    words = ["bench", "-m", "zero_shot", "--suite", "clip11", "--root", "no", "--datasets", "dtd"]
    assert main([*words, "--backbone", "ViT-B-16@x.safetensors"]) == 1
    said = capsys.readouterr().err
    assert "x.safetensors" in said
    assert "dtd (Describable Textures)" in said


def test_weights_are_fetched_only_where_all_else_is_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    monkeypatch.setattr(plan, "hash_at_hand", lambda name: "0" * 64 if fetched else None)
    monkeypatch.setattr("clipbench.backbone.clip.load_backbone", fetched.append)
    from clipbench.recipes.recipe import load_recipe
    from clipbench.recipes.request import Request

    request = Request((load_recipe("zero_shot"),), load_suite(photos(folder, "mini")), ("photos",), (1,))
    (planned,) = plan.make_plan(request, folder / "runs").cells
    assert fetched == ["mini"]
    assert planned.provenance["backbone_hash"] == "0" * 64
    assert identity.hash_at_hand("mini") != "0" * 64


def test_several_wrong_recipes_are_all_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, method in (("one", "CLIPFti"), ("two", "CoOpp"), ("three", "ZeroShot")):
        (folder / f"{name}.yaml").write_text(f"model: {{class_path: {method}}}\ntrainer: {{max_epochs: 0}}\n")
    (folder / "four.yaml").write_text("model: 5\n")
    words = ["--datasets", "dtd", "--seeds", "1", "--dry-run"]
    assert main(["bench", "-m", "one.yaml,three.yaml,two.yaml", *words]) == 2
    said = capsys.readouterr().err
    assert "recipe 'one': unknown method 'CLIPFti'; did you mean 'CLIPFit'" in said
    assert "recipe 'two': unknown method 'CoOpp'; did you mean 'CoOp'" in said
    assert len(said.splitlines()) == 2
    assert main(["bench", "-m", "four.yaml,clipfti", *words]) == 2
    said = capsys.readouterr().err
    assert "recipe 'four.yaml': 'four.yaml' is not a recipe at model" in said
    assert "did you mean 'clipfit'" in said
    assert main(["bench", "-m", "all", *words, "--set", "trainer.max_epoch=1"]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1, f"one mistake, {len(known_recipes())} times"


def test_what_a_card_says_itself_is_what_the_record_says(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from clipbench.recipes.recipe import load_recipe
    from clipbench.recipes.request import Request

    (folder / "amt.yaml").write_text("model: {class_path: ZeroShot}\ndata: {init_args: {crop_scale: [0.3, 1.0]}}\n")
    for recipe, asked in (("clipfit", [0.08, 1.0]), ("amt.yaml", [0.3, 1.0])):
        request = Request((load_recipe(recipe),), load_suite("mini"), ("dtd",), (1,))
        (planned,) = plan.make_plan(request, folder / "runs").cells
        assert planned.resolved["data"]["init_args"]["crop_scale"] == [0.8, 1.0] != asked
        assert planned.resolved["data"]["init_args"]["crop_ratio"] == [0.9, 1.1]
        assert planned.provenance["augmentation"]["crop_scale"] == [0.8, 1.0]
        suite = load_suite(photos(folder, "mini"))
        (other,) = plan.make_plan(Request((load_recipe(recipe),), suite, ("photos",), (1,)), folder / "runs").cells
        assert other.resolved["data"]["init_args"]["crop_scale"] == asked
    words = ["bench", "-m", "clipfit", "--datasets", "dtd", "--set", "data.crop_scale=[0.5, 1.0]"]
    assert main(words) == 2
    assert "data.crop_scale=[0.5, 1.0] is read by nothing: the card 'mini/dtd' has its own" in capsys.readouterr().err
