"""Configs with every default, and what follows from them alone; each is parsed once for all cells of a plan."""

from __future__ import annotations

import dataclasses
import json
from contextlib import suppress
from typing import TYPE_CHECKING

from clipbench.bench.fingerprint import class_path
from clipbench.errors import ConfigError
from clipbench.recipes.cell_config import cell_config
from clipbench.recipes.recipe import Config, Recipe, known_recipes, load_recipe, merge
from clipbench.recipes.request import Request

if TYPE_CHECKING:
    from clipbench.methods.base import Method


class ResolvedConfigs:
    """The configs of one plan; remembers what it parsed."""

    def __init__(self) -> None:
        self._parsed: dict[str, Config] = {}
        self._template_sets: dict[str, str] = {}
        self._packaged: dict[str, Recipe] = {}

    def of(self, config: Config) -> Config:
        """The config with every default; parsed once for all datasets that it is the same for but for their name."""
        from clipbench.bench.build import resolved

        named = isinstance((config["data"].get("init_args") or {}).get("dataset"), str)
        alike = merge(config, {"data": {"init_args": {"dataset": ""}}}) if named else config
        known = json.dumps(alike, default=str)
        if known not in self._parsed:
            self._parsed[known] = resolved(config)
        if not named:
            return self._parsed[known]
        return merge(self._parsed[known], {"data": {"init_args": {"dataset": config["data"]["init_args"]["dataset"]}}})

    def usual(
        self, request: Request, recipe: Recipe, dataset: str, full: Config, user: tuple[Config, ...]
    ) -> Config:  # fmt: skip
        """What the packaged recipe of that name, or its own file, resolves to without the user's settings.

        Args:
            request: what is planned.
            recipe: the recipe.
            dataset: key of the suite.
            full: what the recipe resolves to with the user's settings.
            user: those settings.
        """
        from clipbench.bench.build import with_precision

        if recipe.name not in self._packaged:
            self._packaged[recipe.name] = load_recipe(recipe.name) if recipe.name in known_recipes() else recipe
        packaged = self._packaged[recipe.name]
        if not user and packaged == recipe:
            return full
        request = dataclasses.replace(request, user=())
        section = request.trained()[dataset]
        return self.of(with_precision(cell_config(request, packaged, dataset, section, request.seeds[0])))

    def template_set(self, kind: type[Method], arguments: Config, epochs: int | None) -> str:
        """The template set of a method with these arguments.

        It is built on a backbone without weights, so that a wrong setting, backbone or selection is refused before
        anything is loaded, and a fit without an epoch; once for all cells.
        """
        from clipbench.bench.build import method_without_weights

        known = json.dumps([class_path(kind), arguments, epochs == 0], sort_keys=True, default=str)
        if known not in self._template_sets:
            template_set = kind(**arguments).template_set
            if not kind.derived:
                with suppress(NotImplementedError):  # it looks at values, of which there are none here
                    if method_without_weights(kind, arguments, classes=2).trainable and epochs == 0:
                        raise ConfigError("a bench cell is a whole run: trainer.max_epochs 0 trains nothing")
            self._template_sets[known] = template_set
        return self._template_sets[known]
