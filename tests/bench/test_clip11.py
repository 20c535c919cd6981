"""Every recipe plans on clip11 with the settings of its file; trees of small fake images, and no weights are read."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from clipbench.backbone import load
from clipbench.bench import build, plan
from clipbench.bench.plan import Plan, PlannedCell, make_plan
from clipbench.data import sources
from clipbench.data.card import Card
from clipbench.data.cards import load_card
from clipbench.recipes.recipe import known_recipes, load_recipe
from clipbench.recipes.request import Request
from clipbench.recipes.suites import load_suite
from clipbench.records.settings import flat
from clipbench.testing.cards import fake_tree

GRID = {"base_to_novel": (16, ("imagenet", "eurosat")), "few_shot": (4, ("dtd",))}  # shots and datasets
CLIP11 = load_suite("clip11")
FILES = {name: yaml.safe_load(path.read_text()) for name, path in known_recipes().items()}


@pytest.fixture(scope="module")
def clip11(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data root with a small tree of each dataset; whoever reads weights fails the test."""
    root = tmp_path_factory.mktemp("clip11")
    planned = [name for _, datasets in GRID.values() for name in datasets]
    fitting: dict[str, Card] = {name: fake_tree(load_card(name), root, (1, 1, 1)) for name in planned}

    def read(*_: object) -> Path:
        raise AssertionError("a plan reads no weights")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "load_card", lambda name: fitting.get(name) or load_card(name))
        patch.setattr(plan, "hash_at_hand", lambda _: "0" * 64)
        patch.setattr(build, "describe_backbone", functools.cache(build.describe_backbone))  # methods share the towers
        for reading in ("_fetch", "_in_caches"):
            patch.setattr(load, reading, read)
        yield root


@pytest.fixture(scope="module")
def plans(clip11: Path) -> dict[str, Plan]:
    """One plan of all recipes by protocol."""
    recipes, found = tuple(load_recipe(name) for name in known_recipes()), {}
    for protocol, (shots, datasets) in GRID.items():
        request = Request(recipes, CLIP11, datasets, (1,), shots, protocol=protocol, data_root=str(clip11))
        found[protocol] = make_plan(request, clip11 / "runs")
    return found


def cells(one: Plan, recipe: str) -> dict[str, PlannedCell]:
    """By dataset."""
    return {planned.cell.dataset: planned for planned in one.cells if planned.cell.recipe == recipe}


def says(recipe: str, context: dict[str, Any]) -> dict[str, Any]:
    """Each setting that the file of a recipe states for a cell, by its dotted name: later overrides win."""
    content = FILES[recipe]
    stated = flat({section: content[section] for section in ("model", "data", "trainer") if content.get(section)})
    for override in content["overrides"]:
        axes = {key: override[key] for key in override if key not in ("set", "source", "selected_on")}
        if all(context[key] in (value if isinstance(value, list) else [value]) for key, value in axes.items()):
            stated |= flat(override["set"])
    return {key: value for key, value in stated.items() if not key.endswith("class_path")}


@pytest.mark.parametrize("protocol", GRID)
@pytest.mark.parametrize("recipe", known_recipes())
def test_every_recipe_plans_with_the_settings_of_its_file(recipe: str, protocol: str, plans: dict[str, Plan]) -> None:
    found = cells(plans[protocol], recipe)
    shots, datasets = GRID[protocol]
    assert tuple(found) == datasets
    for dataset, planned in found.items():
        context = {
            "suite": "clip11", "dataset": dataset, "protocol": protocol, "shots": shots, "backbone": CLIP11.backbone,
        }  # fmt: skip
        shown, stated = flat(planned.resolved), says(recipe, context)
        for key in ("model.start", "model.template_set"):  # a recipe's cell, and its templates where null
            if key == "model.start" or stated.get(key, "") is None:
                stated.pop(key, None)
        assert {key: shown[key] for key in stated} == stated, dataset
        epochs, steps = shown["trainer.max_epochs"], shown["trainer.max_steps"]
        if not planned.start:
            learns = FILES[recipe]["parameters"] != 0
            assert (epochs or 0) > 0 or (steps or 0) > 0 or not learns, f"{dataset}: {epochs} epochs, {steps} steps"
        assert (shown["model.backbone"], shown["data.dataset"]) == (CLIP11.backbone, dataset)
        assert (shown["data.shots"], shown["data.protocol"], shown["data.seed"]) == (shots, protocol, 1)
        assert planned.provenance["backbone_hash"] == "0" * 64
        assert planned.undone is not None
        start = (FILES[recipe]["model"].get("init_args") or {}).get("start")
        assert (planned.start.cell.recipe if planned.start else None) == start


def test_no_two_cells_share_a_key(plans: dict[str, Plan]) -> None:
    keys = [planned.key for one in plans.values() for planned in one.cells]
    assert len(set(keys)) == len(keys) == len(known_recipes()) * sum(len(datasets) for _, datasets in GRID.values())
    assert all(len(key) == 64 for key in keys)
