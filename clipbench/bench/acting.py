"""Which settings of a cell act: what its key and its row go by."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pkgutil import resolve_name
from typing import Any

from clipbench.recipes.cell_config import data_context
from clipbench.recipes.recipe import Config, Recipe, matches
from clipbench.recipes.request import Request
from clipbench.recipes.suites import Suite, known_suites, load_suite
from clipbench.records.cell import content_key
from clipbench.records.settings import flat

# what a trainer may be told without moving a number
WITHOUT_EFFECT = {
    "accelerator", "logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary", "log_every_n_steps",
    "default_root_dir", "profiler", "limit_val_batches", "limit_predict_batches", "num_sanity_val_steps",
    "check_val_every_n_epoch", "val_check_interval", "enable_autolog_hparams", "model_registry", "inference_mode",
    "deterministic", "benchmark", "detect_anomaly", "reload_dataloaders_every_n_epochs",
}  # fmt: skip
# of the data's settings; protocol, seeds and targets stand in the key by themselves
DATA_WITHOUT_EFFECT = {"root", "num_workers", "path", "test_batch_size", "seed", "protocol", "targets"}
# settings that methods gained later: left at None they stand in no key, so that earlier records keep theirs
LATER = ("eps",)


def callback_versions(callbacks: Sequence[Config]) -> dict[str, int]:
    """The versions of those callbacks that have one: they move a method's numbers, as its own version would say."""
    versions = {}
    for callback in callbacks:
        kind = resolve_name(callback["class_path"])
        version = getattr(kind, "version", None)
        if isinstance(version, int):
            versions[kind.__name__] = version
    return versions


def acting(full: Config) -> dict[str, Any]:
    """The settings of a resolved config that may move a number, dotted; precision, seeds and data have their own."""
    return flat(
        {
            "model": {"class_path": full["model"]["class_path"].rpartition(".")[2]}
            | without(full["model"], {"backbone"}),
            "data": {"init_args": without(full["data"], DATA_WITHOUT_EFFECT | {"dataset"})["init_args"]},
            "trainer": {k: v for k, v in full["trainer"].items() if k not in WITHOUT_EFFECT | {"precision"}},
        }
    )


def in_key(model: Config) -> dict[str, Any]:
    """The settings of a method as they stand in a key; its class stands there by its whole path."""
    arguments = without(model, {"backbone", "start"})["init_args"]
    return {name: value for name, value in arguments.items() if value is not None or name not in LATER}


def differing(mine: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
    """The settings of `mine` that are others in `usual`, None for those that it does not have."""
    return {name: mine.get(name) for name in mine.keys() | usual.keys() if mine.get(name) != usual.get(name)}


def acting_digest(request: Request, recipe: Recipe, section: Config, dataset: str) -> str:
    """SHA-256 of what a recipe's own file says for this suite, protocol, shots and backbone, whatever the dataset."""
    context = data_context(section, request.suite.name, dataset) | {
        "protocol": request.protocol, "shots": request.shots, "backbone": request.backbone or request.suite.backbone,
    }  # fmt: skip
    entries = [
        {key: value for key, value in entry.items() if key not in ("source", "selected_on")}
        for entry in recipe.overrides
        if matches({key: value for key, value in entry.items() if key != "dataset"}, context)
    ]
    return content_key({"sections": recipe.sections, "overrides": entries})


def suite_digest(suite: Suite, dataset: str, targets: Iterable[str] = ()) -> dict[str, str]:
    """SHA-256 of what a suite says of a dataset beyond its place, and of cards that the packaged suite has not there.

    Nothing where it says no more. Part of no key.

    Args:
        suite: the suite.
        dataset: what a cell trains on.
        targets: what else it is tested on.
    """
    section = suite.datasets[dataset]
    said = without(section, DATA_WITHOUT_EFFECT | {"dataset"})["init_args"]
    if (usual := _packaged_cards(suite.name)) is not None:
        cards = {name: _card(suite.datasets[name]) for name in (dataset, *targets)}
        others = {name: card for name, card in cards.items() if usual.get(name) != card}
        said |= {"card": others.pop(dataset)} if dataset in others else {}
        said |= {"targets": others} if others else {}
    return {"suite_digest": content_key(said)} if said else {}


@functools.cache
def _packaged_cards(suite: str) -> dict[str, list[Any]] | None:
    """Dataset to card of the packaged suite of that name, None where there is none."""
    if suite not in known_suites():
        return None
    return {dataset: _card(section) for dataset, section in load_suite(suite).datasets.items()}


def _card(section: Config) -> list[Any]:
    return [section["class_path"].rpartition(".")[2], (section.get("init_args") or {}).get("dataset")]


def without(section: Config, keys: set[str]) -> Config:
    """A `class_path` section without some of its arguments."""
    arguments = {key: value for key, value in (section.get("init_args") or {}).items() if key not in keys}
    return {"class_path": section["class_path"].rpartition(".")[2], "init_args": arguments}


def with_augmentation(full: Config, augmentation: Config) -> Config:
    """A config with these in the place of its own settings of the augmentation."""
    data = full["data"]
    return full | {"data": data | {"init_args": data["init_args"] | augmentation}}
