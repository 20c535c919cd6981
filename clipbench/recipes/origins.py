"""What would be computed: the settings of one cell, and which layer each comes from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from clipbench.recipes.cell_config import BENCH_TRAINER, cell_config, data_context
from clipbench.recipes.recipe import MATCHES, Config, Recipe, from_dotted, is_fixed, matches
from clipbench.recipes.request import Request
from clipbench.records.settings import flat

PARTS = ("model", "data", "trainer")


class Setting(NamedTuple):
    """One setting: its dotted name, its value, the layer that it comes from, and the source that this states."""

    name: str
    value: Any
    origin: str
    source: str = ""


class Layer(NamedTuple):
    """One layer of a config: its name, the source that it states, its content, the labelled images it was chosen on."""

    name: str
    source: str
    content: Config
    selected_on: str = ""


def layers_of(request: Request, recipe: Recipe, dataset: str) -> Iterator[Layer]:
    """The layers of a cell's config in rising priority, as `cell_config` merges them."""
    suite = request.suite
    section, backbone = request.trained()[dataset], request.backbone or suite.backbone
    yield Layer(f"suite {suite.name}", "", {"model": {"init_args": {"backbone": suite.backbone}}, "data": section})
    if request.backbone:
        yield Layer("--backbone", "", {"model": {"init_args": {"backbone": backbone}}})
    if request.data_root:
        yield Layer("--root", "", {"data": {"init_args": {"root": request.data_root}}})
    yield Layer("bench", "", {"trainer": BENCH_TRAINER})
    yield Layer(f"recipe {recipe.name}", "", recipe.sections)
    context = data_context(section, suite.name, dataset) | {
        "protocol": request.protocol, "shots": request.shots, "backbone": backbone,
    }  # fmt: skip
    yield from _overrides(f"recipe {recipe.name}", recipe.overrides, context, request.setting == "fixed")
    for layer in request.user:
        yield Layer("--set", "", layer)
        yield from _overrides("--config", layer.get("overrides") or (), context)
    axes = {"shots": request.shots, "seed": request.seeds[0], "protocol": request.protocol}
    yield Layer("the cell", "", {"data": {"init_args": axes}})
    if section["class_path"].rpartition(".")[2] == "FewShotDataModule":
        from clipbench.data.cards import load_card

        card = load_card(section["init_args"]["dataset"])
        if card.augmentation:  # it acts in place of the config's own
            yield Layer(f"card {card.id}", "", {"data": {"init_args": dict(card.augmentation)}})


def _overrides(of: str, entries: Sequence[Config], context: Config, fixed: bool = False) -> Iterator[Layer]:
    """The overrides that speak of a cell; without those by dataset or protocol where the setting is `fixed`."""
    for entry in entries:
        if matches(entry, context) and (not fixed or is_fixed(entry)):
            what = ", ".join(f"{name} {_several(entry[name])}" for name in MATCHES if name in entry)
            place, chosen = f"{of}, for {what or 'every cell'}", str(entry.get("selected_on", ""))
            yield Layer(place, str(entry.get("source", "")), from_dotted(entry.get("set", {})), chosen)


def chosen_on_labels(request: Request, recipe: Recipe, dataset: str) -> dict[str, str]:
    """The settings that act and were chosen by looking at labelled images beyond the shots: on which.

    Args:
        request: the grid, of one number of shots.
        recipe: one of its recipes.
        dataset: key of the suite.
    """
    found: dict[str, str] = {}
    for layer in layers_of(request, recipe, dataset):
        for name in flat({part: layer.content[part] for part in PARTS if layer.content.get(part)}):
            for former in [one for one in found if one == name or one.startswith(f"{name}.")]:
                del found[former]
            if layer.selected_on:
                found[name] = layer.selected_on
    return found


def settings_with_origins(request: Request, recipe: Recipe, dataset: str, resolved: Mapping[str, Any]) -> list[Setting]:
    """The settings of a cell with where each comes from.

    Args:
        request: the grid.
        recipe: one of its recipes.
        dataset: key of the suite.
        resolved: the config with every default.
    """
    values = flat({part: resolved[part] for part in PARTS})
    origins: dict[str, tuple[str, str]] = {}
    for origin, source, layer, _ in layers_of(request, recipe, dataset):
        for name, value in flat({part: layer[part] for part in PARTS if layer.get(part)}).items():
            origins |= {inner: (origin, source) for inner in values if inner == name or inner.startswith(f"{name}.")}
            if origin.startswith("card "):
                values[name] = value
    return [Setting(name, value, *origins.get(name, ("default", ""))) for name, value in values.items()]


def datasets_that_differ(request: Request, recipe: Recipe, dataset: str) -> list[str]:
    """The other datasets of the suite for which the recipe says something else."""

    def said(name: str) -> Config:
        config = cell_config(request, recipe, name, sections[name], request.seeds[0])
        return {part: config[part] for part in ("model", "trainer")}

    sections = dataclasses.replace(request, datasets=()).trained()
    return [name for name in sections if said(name) != said(dataset)]


def _several(value: Any) -> str:
    return " or ".join(map(str, value)) if isinstance(value, list) else str(value)
