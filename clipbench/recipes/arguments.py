"""The words of a LightningCLI command line as a nested config, to be merged before the parser sees them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clipbench.errors import ConfigError, UnknownName
from clipbench.recipes.recipe import (
    Config,
    Recipe,
    check_recipe,
    check_settings,
    is_yaml,
    known_recipes,
    merge,
    read_config,
    recipe_of,
)
from clipbench.recipes.settings import SECTIONS, from_dotted, shortened, typed_value

OF_TRAINER_METHODS = ("ckpt_path", "verbose", "weights_only")
FILES = ("weights", "ckpt_path")  # two sources of what was learned
BESIDE = ("weights", *OF_TRAINER_METHODS)  # keys of a config
OF_LIGHTNING = ("seed_everything", "optimizer", "lr_scheduler")  # what LightningCLI writes into a config beside them
# words of LightningCLI and of the bench that mean something else here
RIGHT_WORDS = {
    "optimizer": "the optimiser is a setting of the method: model.optimizer, with model.lr beside it",
    "lr_scheduler": "the schedule is a setting of the method: model.schedule",
    "seed_everything": "nothing depends on global state: data.seed drives the draw and the training",
    "method": "a recipe is named with --config NAME, and a method without one with --model CLASS",
    "recipe": "a recipe is named with --config NAME",
    "datasets": "one run takes one dataset: --data.dataset NAME",
    "seeds": "one run takes one seed: --data.seed NUMBER",
    "set": "a setting is an option of its own, as --model.lr 0.01",
}
SHORT = {"backbone": "model.backbone", "protocol": "data.protocol"}
LOOK = "options look like --model.lr 0.01"
PRINT_FLAGS = ("comments", "skip_default", "skip_null")


@dataclass
class CommandLine:
    """The words after `clipbench fit`.

    Attributes:
        configs: the `--config` values in order.
        settings: all other options, key and value, in order.
        help: an option whose help is asked for and the class, as `("model", "CLIPFit")`.
        print_config: flags of `--print_config`; None where it is not asked for.
    """

    configs: list[str] = field(default_factory=list)
    settings: list[tuple[str, Any]] = field(default_factory=list)
    help: tuple[str, str] | None = None
    print_config: list[str] | None = None


def read_words(words: Sequence[str]) -> CommandLine:
    """The words of a LightningCLI command line.

    Raises:
        ConfigError: a word that belongs to no option, an option without its value, or a value that cannot be read.
    """
    line, rest = CommandLine(), list(words)
    while rest:
        word = rest.pop(0)
        option, equals, text = word.partition("=")
        key = option.lstrip("-")
        owner, _, last = key.rpartition(".")
        if not option.startswith("--") and option != "-c":
            meant = f"did you mean --config {word}?" if word in known_recipes() or is_yaml(word) else LOOK
            raise ConfigError(f"'{shortened(word)}' belongs to no option; {meant}")
        if key in RIGHT_WORDS:
            raise ConfigError(f"there is no option {option}: {RIGHT_WORDS[key]}")
        takes = "none" if key == "print_config" else "maybe" if owner and last == "help" else "one"
        if not equals and takes != "none":
            if rest and not rest[0].startswith("--" if takes == "one" else "-"):
                text = rest.pop(0)
            elif takes == "one":
                raise ConfigError(f"option {option} needs a value")
        if key == "print_config":
            line.print_config = [flag for flag in text.split(",") if flag]
            for flag in line.print_config:
                if flag not in PRINT_FLAGS:
                    raise UnknownName("flag of --print_config", flag, PRINT_FLAGS)
        elif takes == "maybe":
            line.help = (owner, text)
        elif key in ("config", "c"):
            line.configs.append(text)
        elif key in SECTIONS and is_yaml(text):
            raise ConfigError(f"{option} takes no file: '{text}' is for --config, with its settings below '{key}:'")
        elif key in FILES and not text:
            raise ConfigError(f"{option} needs the name of a file")
        else:
            line.settings.append((SHORT.get(key, key), typed_value(key, text, option)))
    return line


def choose_recipe(
    configs: Sequence[str], settings: Mapping[str, Any] | Iterable[tuple[str, Any]], default: str | None = None
) -> tuple[Recipe, list[Config]]:
    """The recipe of a command line and the layers above it.

    The last config that names a method is the recipe; those before it that name one are gone, whole. A `--model X` of
    another class keeps the recipe's data and trainer and drops all that it says of its method.

    Args:
        configs: recipes and files of settings, in order.
        settings: key and value, in order.
        default: names the recipe, which then has no settings, where no method is named.

    Raises:
        ConfigError: no method is named at all, or a file does not fit.
    """
    recipe: Recipe | None = None
    of_recipe: Config = {}
    layers: list[Config] = []
    for name in configs:
        stem, content, beside = _read_layer(name)
        if "class_path" in (content.get("model") or {}):
            recipe, of_recipe = recipe_of(stem, content), beside
            layers = [{key: value for key, value in layer.items() if key != "model"} for layer in layers]
        else:
            layers.append(content | beside)
    command_line = from_dotted(settings)
    check_settings(command_line)
    chosen = (command_line.get("model") or {}).get("class_path")
    if recipe is None:
        chosen = chosen or default
        if chosen is None:
            raise ConfigError("no method is named; give --config with a recipe (clipbench list methods) or --model")
        recipe = Recipe(str(chosen).lower(), {"model": {}, "data": {}, "trainer": {}}, (), {})
    elif chosen is not None and chosen.rpartition(".")[2] != recipe.method:
        kept = [
            entry | {"set": {k: v for k, v in entry.get("set", {}).items() if not k.startswith("model.")}}
            for entry in recipe.overrides
        ]
        recipe = Recipe(recipe.name, recipe.sections | {"model": {"class_path": chosen}}, tuple(kept), recipe.about)
    return recipe, [*([of_recipe] if of_recipe else []), *layers, command_line]


def _read_layer(name: str) -> tuple[str, Config, Config]:
    """A recipe, a layer of settings, or what a run saved: its name, its sections, and what stands beside them."""
    stem, content = read_config(name)
    for key in OF_LIGHTNING:
        if content.pop(key, None):
            raise ConfigError(f"'{name}': {RIGHT_WORDS[key]}")
    beside = {key: value for key in BESIDE if (value := content.pop(key, None)) is not None}
    if "protocol" in content:  # of an earlier version
        content = merge(content, from_dotted({"data.protocol": content.pop("protocol")}))
    check_recipe(content, name)
    return stem, content, beside


def classes_of(configs: Iterable[str]) -> list[str]:
    """The methods that configs name: a user's own files vouch for these classes."""
    sections = (read_config(name)[1].get("model") or {} for name in configs)
    return [str(section["class_path"]) for section in sections if section.get("class_path")]
