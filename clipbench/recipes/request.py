"""A request: what is asked of a bench, and how the words of `clipbench bench` make one; without torch."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from clipbench.backbone.spec import usual_name
from clipbench.errors import ClipbenchError, ConfigError, raise_together
from clipbench.protocols.base import protocol
from clipbench.recipes.arguments import BESIDE
from clipbench.recipes.recipe import (
    ABOUT,
    Config,
    Recipe,
    check_recipe,
    check_settings,
    known_recipes,
    load_recipe,
    read_config,
)
from clipbench.recipes.settings import from_dotted, read_setting
from clipbench.recipes.suites import Suite, load_suite, target_of

# of a run that LightningCLI saved, or with an option of its own in a bench: refused there, with the right word
NOT_OF_RECIPES = (*BESIDE, "protocol", "seed_everything")
LAST_SEED, MOST_SHOTS = 2**32 - 1, 1_000_000  # as in study.schema.json


@dataclass(frozen=True)
class Request:
    """What is asked for: a grid of recipes, datasets and seeds.

    Attributes:
        recipes: the recipes.
        suite: the suite.
        datasets: keys of the suite, empty: all.
        seeds: seeds of the draw and the training.
        shots: images per class.
        more_shots: further numbers of images per class, for each of which the grid is asked for once more.
        protocol: name of the protocol.
        backbone: instead of the suite's.
        setting: `paper` or `fixed`.
        data_root: where the real datasets lie, instead of the usual place.
        user: the user's config and the command line, above the recipe.
    """

    recipes: tuple[Recipe, ...]
    suite: Suite
    datasets: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (1, 2, 3)
    shots: int = 16
    protocol: str = "base_to_novel"
    backbone: str | None = None
    setting: str = "paper"
    data_root: str | None = None
    user: tuple[Config, ...] = field(default=(), hash=False)
    more_shots: tuple[int, ...] = ()

    @property
    def all_shots(self) -> tuple[int, ...]:
        """Every number of images per class that is asked for."""
        return (self.shots, *self.more_shots)

    def each_shots(self) -> Iterator[Request]:
        """The same for one number of images per class after another."""
        for shots in self.all_shots:
            yield replace(self, shots=shots, more_shots=())

    def measured(self) -> list[str]:
        """The datasets of the suite that are measured on: targets where the protocol has some."""
        names = list(self.datasets)
        return list(self.suite.transfer(names)[1] if protocol(self.protocol).has_targets else self.suite.choose(names))

    def trained(self) -> dict[str, Config]:
        """The `data` section of each dataset that cells train on, by its key in the suite; with targets, if any.

        Raises:
            ConfigError: the suite names no source, or it alone.
        """
        names = list(self.datasets)
        if not protocol(self.protocol).has_targets:
            return self.suite.choose(names)
        source, targets = self.suite.transfer(names)
        own = self.suite.datasets[source]
        others = {name: target_of(section, own, self.data_root) for name, section in targets.items()}
        return {source: own | {"init_args": own["init_args"] | {"targets": others}}}


def request_from(options: argparse.Namespace) -> Request:
    """The request that a command line makes.

    Raises:
        ConfigError: an unknown recipe, suite, dataset or protocol (the nearest is named), or a senseless value.
    """
    suite = load_suite(options.suite)
    datasets = requested_names(options.datasets)
    suite.choose(list(datasets))
    if protocol(options.protocol).has_targets:
        suite.transfer(list(datasets))
    recipes: Sequence[str] = requested_names(options.method)
    if "all" in recipes:
        recipes = [name for one in recipes for name in (known_recipes() if one == "all" else [one])]
    if not recipes:
        raise ConfigError("--method names no recipe (clipbench list methods)")
    if options.jobs is not None and options.jobs < 1:
        raise ConfigError(f"--jobs {options.jobs}: at least one process is needed")
    shots = requested_shots(str(options.shots))
    words = requested_names(options.seeds)
    if not all(re.fullmatch(r"-?[0-9]+", word) for word in words):
        raise ConfigError(f"--seeds '{options.seeds}': seeds are whole numbers separated by commas")
    if not words or any(word.startswith("-") or len(word) > 10 or int(word) > LAST_SEED for word in words):
        raise ConfigError(f"--seeds '{options.seeds}': at least one seed, each from 0 to {LAST_SEED}")
    seeds = tuple(map(int, words))
    user = [read_layer(name) for name in options.config]
    user.append(from_dotted(read_setting(text) for text in options.set))
    check_settings(user[-1])
    backbone = None if options.backbone is None else usual_name(options.backbone)
    loaded: list[Recipe] = []
    wrong: dict[str, ClipbenchError] = {}
    for name in dict.fromkeys(recipes):
        try:
            loaded.append(load_recipe(name))
        except ConfigError as error:
            wrong[name] = error
    raise_together(wrong, "recipe")
    return Request(
        recipes=tuple(loaded),
        suite=suite, datasets=datasets, seeds=tuple(dict.fromkeys(seeds)), shots=shots[0],
        protocol=options.protocol, backbone=backbone, setting=options.setting,
        data_root=options.root, user=tuple(user), more_shots=shots[1:],
    )  # fmt: skip


def requested_shots(text: str) -> tuple[int, ...]:
    """`1,2,4` as numbers of images per class, each once.

    Raises:
        ConfigError: not such numbers.
    """
    words = requested_names(text)
    if not words or not all(re.fullmatch(r"[0-9]{1,7}", word) and 1 <= int(word) <= MOST_SHOTS for word in words):
        raise ConfigError(f"--shots {text}: images per class, from 1 to {MOST_SHOTS}; several are separated by commas")
    return tuple(dict.fromkeys(map(int, words)))


def read_layer(name: str) -> Config:
    """The settings of a file that win over a recipe's, without what it says for readers.

    Raises:
        ConfigError: it has not the form of a recipe.
    """
    _, content = read_config(name)
    check_recipe({key: value for key, value in content.items() if key not in NOT_OF_RECIPES}, name)
    content = {key: value for key, value in content.items() if key not in ABOUT}
    return {key: value for key, value in content.items() if key not in NOT_OF_RECIPES or value not in (None, False)}


def requested_names(text: str | Sequence[str]) -> tuple[str, ...]:
    """`a,b c` as names."""
    words = text if isinstance(text, str) else ",".join(text)
    return tuple(word for word in words.replace(",", " ").split() if word)
