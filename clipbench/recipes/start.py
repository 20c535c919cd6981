"""What a recipe starts from: a file of learned weights, or another recipe that the bench runs first."""

from __future__ import annotations

import difflib
from pathlib import Path

from clipbench.errors import ConfigError
from clipbench.recipes.recipe import Config, Recipe, known_recipes, load_recipe


def start_of(config: Config, name: str, children: tuple[str, ...] = ()) -> Recipe | Path | None:
    """What `model.start` of a merged config means: a recipe (packaged, or YAML), a file of weights, or nothing.

    Args:
        config: merged.
        name: of its recipe.
        children: the recipes that start from this one.

    Raises:
        ConfigError: neither a recipe nor a file; a recipe that learns nothing; recipes that start from each other.
    """
    start = (config["model"].get("init_args") or {}).get("start")
    if start is None:
        return None
    if not isinstance(start, str):
        raise ConfigError(f"recipe '{name}': model.start names a recipe or a file of weights, it is {start!r:.100}")
    known = known_recipes()
    if start not in known and not str(start).endswith((".yaml", ".yml")):
        if not Path(start).is_file():
            near = difflib.get_close_matches(str(start), known, n=1, cutoff=0.5)
            hint = f"; did you mean the recipe '{near[0]}'?" if near else ""
            raise ConfigError(f"recipe '{name}' starts from '{start}', neither a recipe nor a file of weights{hint}")
        return Path(start)
    recipe = load_recipe(str(start))
    if recipe.name in (*children, name):
        circle = " starts from ".join(f"'{one}'" for one in (*children, name, recipe.name))
        raise ConfigError(f"these recipes start from each other: {circle}")
    if recipe.sections["trainer"].get("max_epochs") == 0 and "start" not in (
        recipe.sections["model"].get("init_args") or {}
    ):
        raise ConfigError(f"recipe '{name}' starts from '{recipe.name}', which learns nothing")
    return recipe
