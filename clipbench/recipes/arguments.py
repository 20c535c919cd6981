"""The words of a LightningCLI command line as a nested config, to be merged before the parser sees them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from clipbench.errors import ConfigError
from clipbench.recipes.recipe import Config, Recipe, from_dotted, load_recipe, merge, read_config


def split_arguments(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The `--config` values in order, and all other `--key value` or `--key=value` pairs with their YAML values.

    Raises:
        ConfigError: a word that belongs to no option, or an option without its value.
    """
    configs: list[str] = []
    settings: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise ConfigError(f"'{word}' belongs to no option; options look like --model.lr 0.01")
        key, equals, text = word[2:].partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise ConfigError(f"option --{key} needs a value")
            text = rest.pop(0)
        if key in ("config", "c"):
            configs.append(text)
        else:
            settings[key] = yaml.safe_load(text) if text else ""
    return configs, settings


def choose_recipe(configs: Sequence[str], settings: dict[str, Any]) -> tuple[Recipe, list[Config]]:
    """The recipe of a command line and the layers above it.

    The last config that names a method is the recipe; those before it that name one are gone, whole. A `--model X` of
    another class keeps the recipe's data and trainer and drops all that it says of its method.

    Raises:
        ConfigError: no method is named at all.
    """
    recipe: Recipe | None = None
    layers: list[Config] = []
    for name in configs:
        _, content = read_config(name)
        if "class_path" in (content.get("model") or {}):
            recipe = load_recipe_or_saved(name, content)
            layers = [{key: value for key, value in layer.items() if key != "model"} for layer in layers]
        else:
            layers.append(protocol_of_data(content))
    command_line = protocol_of_data(from_dotted(settings))
    chosen = (command_line.get("model") or {}).get("class_path")
    if recipe is None:
        if chosen is None:
            raise ConfigError("no method is named; give --config with a recipe (clipbench list methods) or --model")
        recipe = Recipe(str(chosen).lower(), {"model": {}, "data": {}, "trainer": {}}, (), {})
    elif chosen is not None and chosen.rpartition(".")[2] != recipe.method:
        kept = [
            entry | {"set": {k: v for k, v in entry.get("set", {}).items() if not k.startswith("model.")}}
            for entry in recipe.overrides
        ]
        recipe = Recipe(recipe.name, recipe.sections | {"model": {"class_path": chosen}}, tuple(kept), recipe.about)
    return recipe, [*layers, command_line]


def load_recipe_or_saved(name: str, content: Config) -> Recipe:
    """A recipe, or the resolved config that a run saved (which has top-level keys of the command line too)."""
    if "seed_everything" not in content:
        return load_recipe(name)
    content = protocol_of_data(content)
    return Recipe(Path(name).stem, {key: content.get(key) or {} for key in ("model", "data", "trainer")}, (), {})


def protocol_of_data(config: Config) -> Config:
    """The config with `protocol`, a short word on the command line and a key of older configs, among the data's."""
    if "protocol" not in config:
        return config
    rest = {key: value for key, value in config.items() if key != "protocol"}
    return merge(rest, {"data": {"init_args": {"protocol": config["protocol"]}}})
