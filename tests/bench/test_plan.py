"""A plan parses a recipe once for all datasets, and that moves no key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from clipbench.bench import build
from clipbench.bench.acting import in_key
from clipbench.bench.plan import Plan, make_plan
from clipbench.bench.resolved import ResolvedConfigs
from clipbench.recipes.recipe import Config, load_recipe
from clipbench.recipes.request import Request
from clipbench.recipes.suites import load_suite
from clipbench.testing.folders import suite_of_folder

DATASETS = ("eurosat", "dtd", "caltech101")


@pytest.fixture
def by_dataset(tmp_path: Path) -> str:
    """A recipe with a value of its own for one dataset."""
    path = tmp_path / "by_dataset.yaml"
    content = {
        "model": {"class_path": "CLIPFit"}, "trainer": {"max_epochs": 2},
        "overrides": [{"suite": "mini", "dataset": "dtd", "set": {"model.lr": 0.5, "model.template_set": "single"}}],
    }  # fmt: skip
    path.write_text(yaml.safe_dump(content))
    return str(path)


def planned(results: Path, *recipes: str, **changes: Any) -> Plan:
    grid = {"suite": load_suite("mini"), "datasets": DATASETS, "seeds": (1, 2), "shots": 2} | changes
    return make_plan(Request(tuple(load_recipe(name) for name in recipes), **grid), results)


@pytest.fixture
def parses(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The configs that are parsed from now on."""
    seen: list[Config] = []
    resolved = build.resolved

    def watched(config: Config) -> Config:
        seen.append(config)
        return resolved(config)

    monkeypatch.setattr(build, "resolved", watched)
    return seen


def test_a_recipe_is_parsed_once_per_distinct_config(parses: list[Config], by_dataset: str, tmp_path: Path) -> None:
    planned(tmp_path, "clipfit")
    assert len(parses) == 1
    parses.clear()
    planned(tmp_path, by_dataset)
    assert len(parses) == 2


def test_parsed_apart_every_cell_is_the_same(by_dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cells() -> list[tuple[Any, ...]]:
        made = [planned(tmp_path, "clipfit", "wise_ft", "zero_shot", by_dataset)]
        made.append(planned(tmp_path, "clipfit", suite=suite_of_folder(tmp_path / "images", "mini"), datasets=()))
        return [(c.cell, c.key, c.config, c.resolved, c.provenance) for one in made for c in one.cells]

    together = cells()
    monkeypatch.setattr(ResolvedConfigs, "of", lambda self, config: build.resolved(config))
    monkeypatch.setattr(ResolvedConfigs, "template_set", lambda self, kind, given, epochs: kind(**given).template_set)
    assert cells() == together
    datasets = {cell.dataset: resolved["data"]["init_args"] for cell, _, _, resolved, _ in together}
    assert {name: arguments["dataset"] for name, arguments in datasets.items() if "dataset" in arguments} == {
        name: f"mini/{name}" for name in DATASETS
    }


def test_a_setting_that_came_later_moves_no_key_while_nobody_gives_it() -> None:
    settings = {"optimizer": "adam", "eps": None, "lr": None, "backbone": "mini", "start": None}
    assert in_key({"class_path": "CLIPFit", "init_args": settings}) == {"optimizer": "adam", "lr": None}
    given = in_key({"class_path": "CLIPFit", "init_args": settings | {"eps": 1e-3}})
    assert given == {"optimizer": "adam", "lr": None, "eps": 1e-3}


def test_what_values_were_chosen_on_moves_no_key_and_no_row(tmp_path: Path) -> None:
    """It is part of neither, so that what is known of a recipe may be said later."""
    recipe = load_recipe("clipfit")
    silent = replace(
        recipe,
        overrides=tuple({k: v for k, v in entry.items() if k != "selected_on"} for entry in recipe.overrides),
    )
    grid = {"suite": load_suite("mini"), "datasets": ("dtd",), "seeds": (1,), "shots": 2}
    (said,), (unsaid,) = (make_plan(Request((one,), **grid), tmp_path).cells for one in (recipe, silent))
    assert said.key == unsaid.key
    assert said.provenance["selected_on"]["model.lr"]
    assert unsaid.provenance == said.provenance | {"selected_on": {}}
