"""A record read as a request: the one cell that it is of, with the settings that acted."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator

from clipbench.errors import ConfigError
from clipbench.printable import printable
from clipbench.recipes.recipe import Config, Recipe
from clipbench.recipes.request import Request
from clipbench.recipes.settings import class_paths
from clipbench.recipes.suites import Suite
from clipbench.records.cell import Record

LIBRARIES = ("lightning", "torch", "clipbench")  # whose classes a record may name
AXES = ("shots", "seed", "protocol")  # of the data; they stand in the cell
SOURCE = ("dataset", "path", "root", "split", "template")  # of the data: what a suite says


def request_of(record: Record, root: str | None = None) -> Request:
    """The request whose only cell is that of a record.

    Args:
        record: with its whole config (`check_config`).
        root: where the datasets, or the images of one's own, lie, instead of the place that the record names.
    """
    cell, config = record.cell, copy.deepcopy(record.data["config"])
    data = config["data"].get("init_args", {})
    if root is not None:
        data["root"] = root
    source = {name: data.pop(name) for name in SOURCE if name in data}
    targets = data.pop("targets", None) or {}
    others: dict[str, Config] = {
        name: {"class_path": "FewShotDataModule", "init_args": {"dataset": said}} if isinstance(said, str) else said
        for name, said in targets.items()
    }
    section: Config = {"class_path": config["data"]["class_path"].rpartition(".")[2], "init_args": source}
    arguments = {name: value for name, value in config["model"].get("init_args", {}).items() if name != "backbone"}
    sections = {
        "model": {"class_path": config["model"]["class_path"], "init_args": arguments},
        "data": {"init_args": {name: value for name, value in data.items() if name not in AXES}},
        "trainer": config.get("trainer", {}),
    }
    return Request(
        recipes=(Recipe(cell.recipe, sections, (), {}),),
        suite=Suite(
            cell.suite, cell.backbone, {cell.dataset: section, **others}, source=cell.dataset if others else ""
        ),
        seeds=(cell.seed,), shots=cell.shots, protocol=cell.protocol, setting=cell.setting, data_root=root,
    )  # fmt: skip


def check_config(record: Record, recipe: Recipe | None = None) -> None:
    """Refuse a record without its whole config, or that names a class for which nobody vouches: it would be imported.

    Args:
        record: any; its method's class is looked up by name, and not refused here.
        recipe: that of the user, who vouches for the classes that it names.

    Raises:
        ConfigError: such a record.
    """
    for part in ("model", "data"):
        if "class_path" not in record.data["config"].get(part, {}):
            raise ConfigError(
                f"the record of {record.cell} does not say what its {part} was: it cannot be computed again"
            )
    trusted = set(_imported(recipe.sections)) if recipe else set()
    for name in _imported({key: value for key, value in record.data["config"].items() if key != "model"}):
        if name not in trusted and name.partition(".")[0] not in LIBRARIES:
            raise ConfigError(
                f"the record of {record.cell} names the class '{printable(name)}', and a file of data runs no code: "
                "name the recipe that asks for it, as --method own.yaml"
            )


def _imported(config: Config) -> Iterator[str]:
    """What building a config would import: its classes, and functions that a setting of the trainer's may name."""
    yield from (name for name in class_paths(config) if "." in name)
    rest = [config.get("trainer")]
    while rest:
        one = rest.pop()
        rest += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        if isinstance(one, str) and re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", one):
            yield one
