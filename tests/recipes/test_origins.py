"""Which settings of a cell act that people chose on labelled images beyond the shots."""

from __future__ import annotations

from typing import Any

import pytest

from clipbench.recipes.origins import chosen_on_labels
from clipbench.recipes.recipe import Recipe, from_dotted, load_recipe
from clipbench.recipes.request import Request
from clipbench.recipes.suites import load_suite

OVERRIDES = (
    {"suite": "mini", "set": {"model.lr": 0.1, "trainer.max_epochs": 3}, "selected_on": "val images of mini"},
    {"suite": "mini", "dataset": "dtd", "set": {"model.lr": 0.2}, "selected_on": "val images of dtd"},
    {"suite": "mini", "dataset": "eurosat", "set": {"model.lr": 0.3}, "source": "the paper"},
    {"suite": "clip11", "set": {"model.momentum": 0.5}, "selected_on": "val images of clip11"},
)
OURS, DTD = "val images of mini", "val images of dtd"


def chosen(dataset: str, *user: dict[str, Any], **changes: Any) -> dict[str, str]:
    recipe = Recipe("mine", {"model": {"class_path": "CLIPFit"}, "data": {}, "trainer": {}}, OVERRIDES, {})
    request = Request((recipe,), load_suite("mini"), (dataset,), (1,), user=user, **changes)
    return chosen_on_labels(request, recipe, dataset)


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ("food101", {"model.lr": OURS, "trainer.max_epochs": OURS}),
        ("dtd", {"model.lr": DTD, "trainer.max_epochs": OURS}),
        ("eurosat", {"trainer.max_epochs": OURS}),
    ],
)
def test_the_value_that_acts_counts(dataset: str, expected: dict[str, str]) -> None:
    assert chosen(dataset) == expected


def test_one_value_everywhere_leaves_out_what_is_keyed_by_dataset() -> None:
    assert chosen("dtd", setting="fixed") == {"model.lr": OURS, "trainer.max_epochs": OURS}


def test_what_a_user_sets_is_theirs_and_their_file_may_say_how_it_was_chosen() -> None:
    assert chosen("dtd", from_dotted({"model.lr": 0.5, "trainer.max_epochs": 1})) == {}
    own = {"overrides": [{"dataset": "dtd", "set": {"model.lr": 0.5}, "selected_on": "my photos"}]}
    assert chosen("dtd", own) == {"model.lr": "my photos", "trainer.max_epochs": OURS}
    assert chosen("food101", own) == {"model.lr": OURS, "trainer.max_epochs": OURS}


@pytest.mark.parametrize(("setting", "chosen_by_dataset"), [("paper", True), ("fixed", False)])
def test_published_values_by_dataset_count_where_they_act(setting: str, chosen_by_dataset: bool) -> None:
    recipe = load_recipe("tip_adapter")
    request = Request((recipe,), load_suite("clip11"), ("dtd", "oxford_pets"), (1,), setting=setting)
    assert ("model.alpha" in chosen_on_labels(request, recipe, "dtd")) == chosen_by_dataset
    assert chosen_on_labels(request, recipe, "oxford_pets") == {}
