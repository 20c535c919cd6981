"""Recipes and how a config comes together: one function merges all layers before the parser sees anything.

In rising priority: class defaults, suite and card, recipe, its matching overrides, the user's `--config`, the command
line. When a `class_path` is replaced its former `init_args` are dropped, so that nothing of one method or dataset
reaches another.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from clipbench.errors import ClipbenchWarning, ConfigError, UnknownName
from clipbench.recipes.settings import SECTIONS, Config, from_dotted, merge, settled
from clipbench.resources import configs_dir
from clipbench.yaml_files import check_schema, read_yaml

SCHEMA_FILE = Path(__file__).with_name("recipe.schema.json")
ABOUT = ("title", "paper", "published_as", "needs", "parameters", "validation", "description")
MATCHES = ("suite", "protocol", "dataset", "shots", "backbone")


@dataclass(frozen=True)
class Recipe:
    """A method with all its settings.

    Attributes:
        name: of the file, without its ending.
        sections: model, data, trainer.
        overrides: entries `{matches ..., set: {dotted key: value}}`, later ones win.
        about: title, paper, published_as, needs, parameters, validation, description: for readers, without effect on a
            number. `parameters` counts what is trained on OpenAI's ViT-B/16: a number, or `{per_class: 513, fixed: 0}`
            where it grows with the classes. `validation` says what the method itself chooses on val images.
    """

    name: str
    sections: Config = field(hash=False)
    overrides: tuple[Config, ...] = field(hash=False)
    about: Config = field(hash=False)

    @property
    def method(self) -> str:
        """The class of the method."""
        return str(self.sections["model"]["class_path"]).rpartition(".")[2]

    @property
    def parameters(self) -> str:
        """What is trained on OpenAI's ViT-B/16, as `46,080` or `513 a class`; empty where the file does not say."""
        stated = self.about.get("parameters", "")
        if not isinstance(stated, dict):
            return f"{stated:,}" if stated != "" else ""
        fixed, per_class = stated.get("fixed", 0), stated["per_class"]
        return (f"{fixed:,} + " if fixed else "") + f"{per_class:,} a class"

    @property
    def validation_free(self) -> str:
        """Whether no setting is chosen on labelled images beyond the shots: `yes`, `no: ...` or `not on ...`."""
        if "validation" in self.about:
            return f"no: {self.about['validation']}"
        chosen = [entry for entry in self.overrides if "selected_on" in entry]
        if any("suite" not in entry for entry in chosen):
            return "no: settings of this file"
        suites = {suite for entry in chosen for suite in _listed(entry["suite"])}
        return f"not on {', '.join(sorted(map(str, suites)))}" if suites else "yes"


def known_recipes() -> dict[str, Path]:
    """The packaged recipes, then those of plug-ins: name to file.

    Raises:
        ConfigError: a plug-in has no folder of recipes, or one of a name that is taken.
    """
    known = {path.stem: path for path in sorted((configs_dir() / "methods").glob("*.yaml"))}
    for path, plugin in _plugin_recipes().items():
        if known.setdefault(path.stem, path) != path:
            raise ConfigError(f"plug-in '{plugin}' calls its recipe '{path.stem}', a name that is taken")
    return known


def recipes_here() -> dict[str, Recipe]:
    """File to recipe: those in the folder that clipbench is called from; one with a fault is said."""
    found = {}
    for path in sorted([*Path().glob("*.yaml"), *Path().glob("*.yml")]):
        try:
            model = read_config(str(path))[1].get("model")
        except ConfigError:
            continue  # not a config at all
        if isinstance(model, dict) and "class_path" in model:
            try:
                found[path.name] = load_recipe(str(path))
            except ConfigError as error:
                warnings.warn(f"'{path}' is not listed: {error}", ClipbenchWarning, stacklevel=2)
    return found


def recipe_origin(name: str) -> str:
    """Where a known recipe comes from: `clipbench`, or the plug-in."""
    return _plugin_recipes().get(known_recipes()[name], "clipbench")


@functools.cache
def _plugin_recipes() -> dict[Path, str]:
    """File to plug-in: the YAML files beside each module that the entry points `clipbench.recipes` name."""
    found = {}
    for point in entry_points(group="clipbench.recipes"):
        plugin = point.dist.name if point.dist else point.name
        try:
            spec = importlib.util.find_spec(point.module)
        except Exception as error:  # what it imports above the folder may fail in any way
            what = " ".join(f"{type(error).__name__}: {error}".split())
            raise ConfigError(f"plug-in '{plugin}': the recipes in '{point.module}' cannot be read: {what}") from error
        if spec is None:
            raise ConfigError(f"plug-in '{plugin}' ships recipes in '{point.module}', a module that is not there")
        folders = spec.submodule_search_locations or [os.path.dirname(spec.origin or "")]
        found.update({path: plugin for folder in folders for path in sorted(Path(folder).glob("*.yaml"))})
    return found


def is_yaml(name: str) -> bool:
    """Whether a recipe, suite or study is named by its file."""
    return name.endswith((".yaml", ".yml"))


def read_config(name: str) -> tuple[str, Config]:
    """Name and content of a config: a file, or a packaged recipe.

    Raises:
        UnknownName: neither a file nor a recipe.
        ConfigError: the file is not YAML with the sections of a config.
    """
    known = known_recipes()
    path = known.get(name, Path(name))
    if not path.is_file():
        raise UnknownName("recipe or config file", name, known)
    content = read_yaml(path)
    if content is None or content == {}:
        raise ConfigError(f"'{path}' is empty: a config has the sections {', '.join(SECTIONS)}")
    if not isinstance(content, dict):
        raise ConfigError(f"'{path}' is not a config: it holds {type(content).__name__} instead of sections")
    return path.stem, {
        key: _filled(value) for key, value in content.items() if key not in SECTIONS or value is not None
    }


def _filled(section: Any) -> Any:
    """A section without settings that stand there with nothing below them: they take nothing away."""
    if not isinstance(section, dict) or section.get("init_args", 0) is not None:
        return section
    return {key: value for key, value in section.items() if key != "init_args"}


def load_recipe(name: str) -> Recipe:
    """The packaged recipe of that name, or the one in a YAML file.

    Raises:
        UnknownName: no such recipe, or a key that a recipe does not have.
        ConfigError: not a recipe.
    """
    stem, content = read_config(name)
    check_recipe(content, name)
    if "class_path" not in (content.get("model") or {}):
        raise ConfigError(f"recipe '{name}' names no method: it needs model.class_path")
    return recipe_of(stem, content)


def check_recipe(content: Config, name: str) -> None:
    """Raise ConfigError, with the place, where content has not the form of a recipe or of a part of one."""
    check_schema(content, SCHEMA_FILE, "recipe", name)


def check_settings(settings: Config) -> None:
    """Raise ConfigError where single settings make a section that no recipe could have."""
    check_recipe({key: value for key, value in settings.items() if key in SECTIONS}, "the command line")


def recipe_of(name: str, content: Config) -> Recipe:
    """A recipe of content that has been checked."""
    return Recipe(
        name, {key: content.get(key) or {} for key in SECTIONS}, tuple(content.get("overrides") or ()),
        {key: content[key] for key in ABOUT if key in content},
    )  # fmt: skip


def matches(entry: Mapping[str, Any], context: Mapping[str, Any]) -> bool:
    """Whether an override speaks of this cell; a list means any of its values."""
    return all(context.get(key) in _listed(entry[key]) for key in MATCHES if key in entry)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def is_fixed(entry: Mapping[str, Any]) -> bool:
    """Whether an override leaves one value for every dataset and protocol, so that it acts under `fixed` too."""
    return not {"dataset", "protocol"} & entry.keys()


def resolve(
    recipe: Recipe,
    base: Config,
    context: Mapping[str, Any],
    user: Sequence[Config] = (),
    setting: str = "paper",
) -> Config:
    """The merged config of one run, ready for the parser.

    Args:
        recipe: the method and its settings.
        base: what suite and card say (backbone, dataset).
        context: suite, protocol, dataset, shots, backbone: what overrides match on.
        user: the user's configs and then the command line.
        setting: `paper`, or `fixed`: no override that is keyed by a dataset or a protocol applies (see `is_fixed`).
    """
    config = merge(base, recipe.sections)
    for entry in recipe.overrides:
        if matches(entry, context) and (setting != "fixed" or is_fixed(entry)):
            config = merge(config, from_dotted(entry.get("set", {})))
    for layer in user:
        config = merge(config, {key: value for key, value in layer.items() if key not in ("overrides", *ABOUT)})
        for entry in layer.get("overrides") or ():
            if matches(entry, context):
                config = merge(config, from_dotted(entry.get("set", {})))
    return settled(config)
