"""How a config comes together: priorities, overrides, and that nothing of one method or dataset reaches another."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from clipbench.errors import ConfigError, UnknownName
from clipbench.recipes.arguments import choose_recipe
from clipbench.recipes.recipe import (
    Recipe,
    from_dotted,
    known_recipes,
    load_recipe,
    matches,
    merge,
    read_config,
    resolve,
)
from clipbench.records.settings import flat

BASE = {"model": {"init_args": {"backbone": "mini"}}, "data": {"class_path": "FewShotDataModule", "init_args": {}}}


def recipe(*overrides: dict, **model: object) -> Recipe:
    sections = {"model": {"class_path": "CLIPFit", "init_args": model}, "data": {}, "trainer": {"max_epochs": 100}}
    return Recipe("r", sections, overrides, {})


def test_a_new_class_drops_the_settings_of_the_former() -> None:
    low = {"class_path": "CLIPFit", "init_args": {"lr": 0.5}}
    assert merge(low, {"class_path": "CoOp", "init_args": {"n_context": 4}}) == {
        "class_path": "CoOp",
        "init_args": {"n_context": 4},
    }


def test_the_same_class_by_its_path_keeps_the_settings() -> None:
    low = {"class_path": "CLIPFit", "init_args": {"lr": 0.5}}
    assert merge(low, {"class_path": "clipbench.methods.clipfit.CLIPFit"})["init_args"] == {"lr": 0.5}


def test_merging_changes_neither_side() -> None:
    low, high = {"a": {"b": [1]}}, {"a": {"c": [2]}}
    merged = merge(low, high)
    merged["a"]["c"].append(3)
    assert (low, high) == ({"a": {"b": [1]}}, {"a": {"c": [2]}})


def test_dotted_settings() -> None:
    assert from_dotted({"model": "CoOp", "model.lr": 1, "data.init_args.shots": 4, "trainer.max_epochs": 2}) == {
        "model": {"class_path": "CoOp", "init_args": {"lr": 1}},
        "data": {"init_args": {"shots": 4}},
        "trainer": {"max_epochs": 2},
    }


def test_later_overrides_win_and_lists_mean_any() -> None:
    first = {"suite": "clip11", "dataset": ["dtd", "eurosat"], "set": {"model.lr": 1, "trainer.max_epochs": 10}}
    second = {"dataset": "dtd", "set": {"model.lr": 2}}
    context = {"suite": "clip11", "dataset": "dtd", "protocol": "base_to_novel", "shots": 16, "backbone": "x"}
    config = resolve(recipe(first, second, lr=0), BASE, context)
    assert config["model"]["init_args"]["lr"] == 2
    assert config["trainer"]["max_epochs"] == 10
    assert not matches(first, context | {"suite": "mini"})


@pytest.mark.parametrize("axis", ["dataset", "protocol"])
def test_fixed_setting_ignores_what_is_keyed_by_dataset_or_protocol(axis: str) -> None:
    context = {"suite": "clip11", "dataset": "dtd", "protocol": "few_shot"}
    varies = {"suite": "clip11", axis: context[axis], "set": {"model.lr": 1}}
    by_suite = {"suite": "clip11", "set": {"trainer.max_epochs": 3}}
    assert resolve(recipe(varies, lr=0), BASE, context)["model"]["init_args"]["lr"] == 1
    config = resolve(recipe(varies, by_suite, lr=0), BASE, context, setting="fixed")
    assert config["model"]["init_args"]["lr"] == 0
    assert config["trainer"]["max_epochs"] == 3


def test_priority_of_layers() -> None:
    override = {"suite": "mini", "set": {"model.lr": 2, "model.momentum": 2, "model.weight_decay": 2}}
    user, command = from_dotted({"model.momentum": 3, "model.weight_decay": 3}), from_dotted({"model.weight_decay": 4})
    config = resolve(recipe(override, lr=1, backbone="recipe's"), BASE, {"suite": "mini"}, [user, command])
    assert config["model"]["init_args"] == {
        "backbone": "recipe's",
        "lr": 2,
        "momentum": 3,
        "weight_decay": 4,
    }


def test_a_second_recipe_leaves_nothing_of_the_first() -> None:
    chosen, layers = choose_recipe(["clipfit", "coop"], {})
    alone, _ = choose_recipe(["coop"], {})
    assert chosen == alone
    assert layers == [{}]


def test_another_model_leaves_nothing_of_the_first_method() -> None:
    chosen, layers = choose_recipe(["clipfit"], {"model": "CoOp"})
    context = {"suite": "mini", "dataset": "dtd", "protocol": "base_to_novel"}
    config = resolve(chosen, BASE, context, layers)
    assert config["model"] == {"class_path": "CoOp", "init_args": {"backbone": "mini"}}


def test_configs_of_earlier_runs_with_a_protocol_of_their_own_are_read(tmp_path: Path) -> None:
    model = {"class_path": "CLIPFit", "init_args": {"lr": 0.5}}
    saved = {"seed_everything": False, "model": model, "data": {"class_path": "FewShotDataModule"}, "trainer": {}}
    (tmp_path / "saved.yaml").write_text(yaml.safe_dump(saved | {"protocol": "few_shot"}))
    chosen, _ = choose_recipe([str(tmp_path / "saved.yaml")], {})
    assert chosen.sections["data"]["init_args"] == {"protocol": "few_shot"}
    (tmp_path / "mine.yaml").write_text("protocol: few_shot\n")
    _, layers = choose_recipe(["clipfit", str(tmp_path / "mine.yaml")], {})
    assert layers[0] == {"data": {"init_args": {"protocol": "few_shot"}}}


def test_no_method_at_all() -> None:
    with pytest.raises(ConfigError, match="no method"):
        choose_recipe([], {"trainer.max_epochs": 3})


@pytest.mark.parametrize("name", known_recipes())
def test_packaged_recipes_are_whole(name: str) -> None:
    """Each override says where it comes from, and mini has a block of its own where anything is trained."""
    loaded = load_recipe(name)
    assert all(entry.get("source") and entry.get("set") for entry in loaded.overrides)
    assert loaded.about["title"]
    assert loaded.about["paper"]
    if loaded.sections["trainer"]["max_epochs"]:
        assert any(entry.get("suite") == "mini" for entry in loaded.overrides)


@pytest.mark.parametrize("name", known_recipes())
def test_what_was_chosen_on_val_images_says_so(name: str) -> None:
    """An override whose source speaks of val images is not validation-free, and states on which it was chosen."""
    loaded = load_recipe(name)
    for entry in loaded.overrides:
        by_itself = "validation" in loaded.about and "the method itself" in entry["source"]
        if re.search(r"\bval(idation)? (images|set|draw)", entry["source"]) and not by_itself:
            assert entry.get("selected_on"), f"{entry['source']}: it needs selected_on, the images it was chosen on"


@pytest.mark.parametrize("name", known_recipes())
def test_a_published_value_for_single_datasets_says_that_it_was_chosen(name: str) -> None:
    """Of the large datasets the size explains it; templates are what a dataset is prompted with."""
    large = {"imagenet", "food101", "sun397"}
    for entry in load_recipe(name).overrides:
        datasets = entry.get("dataset", [])
        datasets = {datasets} if isinstance(datasets, str) else set(datasets)
        if entry.get("suite") == "clip11" and datasets - large and set(entry["set"]) - {"model.template_set"}:
            assert entry.get("selected_on"), f"{name}, {sorted(datasets)}: {entry['set']}"


def stated(*overrides: dict[str, Any], **about: Any) -> str:
    return Recipe("mine", {}, overrides, about).validation_free


def test_a_recipe_says_for_readers_whether_it_is_validation_free() -> None:
    free, chosen = {"suite": "clip11", "set": {"model.lr": 1}}, {"set": {"model.lr": 2}, "selected_on": "val images"}
    assert stated() == stated(free) == "yes"
    assert stated(free, chosen | {"suite": "mini"}) == "not on mini"
    assert stated(chosen | {"suite": ["mini", "clip11"], "dataset": "dtd"}) == "not on clip11, mini"
    assert stated(chosen) == "no: settings of this file"
    assert stated(chosen | {"suite": "mini"}, validation="C, on val images") == "no: C, on val images"


def test_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'clipfit'"):
        load_recipe("clipfti")


def test_unknown_key_of_a_recipe(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"model": {"class_path": "CoOp"}, "trainr": {}}))
    with pytest.raises(UnknownName, match="did you mean 'trainer'"):
        load_recipe(str(file))


@pytest.mark.parametrize(
    ("stated", "shown"),
    [
        (46_080, "46,080"),
        (0, "0"),
        ({"per_class": 513}, "513 a class"),
        ({"per_class": 2, "fixed": 3_000}, "3,000 + 2 a class"),
    ],
)
def test_the_count_of_parameters_for_readers(tmp_path: Path, stated: object, shown: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"model": {"class_path": "CoOp"}, "parameters": stated}))
    assert load_recipe(str(file)).parameters == shown


@pytest.mark.parametrize("stated", ["46,080", -1, True, {}, {"fixed": 3}, {"per_class": 1.5}, {"per_class": 1, "a": 2}])
def test_a_count_that_is_none(tmp_path: Path, stated: object) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"model": {"class_path": "CoOp"}, "parameters": stated}))
    with pytest.raises(ConfigError, match=r"parameters is a whole number, or \{per_class: NUMBER\}"):
        load_recipe(str(file))


def test_a_recipe_without_a_count_shows_none() -> None:
    assert Recipe("mine", {}, (), {}).parameters == ""


def test_a_file_that_is_not_yaml(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("model: [")
    with pytest.raises(ConfigError, match="not YAML"):
        read_config(str(file))


@pytest.mark.parametrize(
    ("name", "released"),
    [
        ("maple", {"trainer.max_epochs": 2, "model.lr": 0.0026, "model.depth": 3}),
        (
            "promptsrc",
            {"model.text_depth": 3, "model.image_depth": 3, "model.average_mean": 6, "model.average_std": 10},
        ),
        ("cocoop", {"trainer.max_epochs": 10, "model.lr": 0.002, "data.batch_size": 1}),  # as in base-to-novel
        ("ivlp", {"trainer.max_epochs": 5, "model.lr": 0.0035, "model.text_depth": 12}),
        ("vpt", {"trainer.max_epochs": 5, "model.lr": 0.0025, "model.depth": 12}),
        ("coop", {"trainer.max_epochs": 50}),
    ],
)
def test_a_transfer_has_the_settings_of_its_released_configuration(name: str, released: dict[str, float]) -> None:
    """The files that the scripts `xd_train*.sh` of the official repositories name."""
    context = {"suite": "clip11", "dataset": "imagenet", "protocol": "cross_dataset", "shots": 16, "backbone": "x"}
    found = flat(resolve(load_recipe(name), BASE, context))
    assert {key: found[key] for key in released} == released


def test_one_value_everywhere_has_none_of_a_transfer() -> None:
    context = {"suite": "clip11", "dataset": "imagenet", "protocol": "cross_dataset", "shots": 16, "backbone": "x"}
    for name in ("maple", "promptsrc"):
        own = load_recipe(name)
        fixed = flat(resolve(own, BASE, context, setting="fixed"))
        base_to_novel = flat(resolve(own, BASE, context | {"protocol": "base_to_novel", "dataset": "dtd"}))
        assert fixed == base_to_novel
