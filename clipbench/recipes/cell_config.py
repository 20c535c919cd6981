"""The merged config of one cell: suite and card, recipe, its overrides, the user, and the axes of the grid."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from clipbench.errors import ConfigError
from clipbench.recipes.arguments import BESIDE
from clipbench.recipes.recipe import Config, Recipe, merge, resolve
from clipbench.recipes.request import Request
from clipbench.recipes.settings import plain

BENCH_TRAINER: Config = {
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "limit_val_batches": 0,
    "num_sanity_val_steps": 0,
}


def cell_config(request: Request, recipe: Recipe, dataset: str, section: Config, seed: int) -> Config:
    """The merged config of one cell; only the precision is left to the device that runs it, unless somebody sets it."""
    backbone = request.backbone or request.suite.backbone
    base: Config = {
        "model": {"init_args": {"backbone": backbone}},
        "data": copy.deepcopy(section),
        "trainer": dict(BENCH_TRAINER),
    }
    if request.data_root and section["class_path"] == "FewShotDataModule":
        base["data"]["init_args"]["root"] = request.data_root
    context = data_context(section, request.suite.name, dataset) | {
        "protocol": request.protocol, "shots": request.shots, "backbone": backbone,
    }  # fmt: skip
    check_user_layers(request.user, recipe)
    for layer in request.user:
        for key in ("devices", "num_nodes", "strategy"):
            if key in _section(layer, "trainer"):
                raise ConfigError(f"a run is one process on one device: leave trainer.{key} out")
        for key in BESIDE:
            if layer.get(key) is not None:
                raise ConfigError(
                    f"a bench cell is a whole run: {key} is for `clipbench fit` and `test`; see model.start"
                )
    # a folder or manifest of the suite keeps its class: the recipe's data section speaks of batches only
    sections = dict(recipe.sections)
    sections["data"] = {key: value for key, value in (sections.get("data") or {}).items() if key != "class_path"}
    recipe = Recipe(recipe.name, sections, recipe.overrides, recipe.about)
    axes = {"data": {"init_args": {"shots": request.shots, "seed": seed, "protocol": request.protocol}}}
    config = merge(resolve(recipe, base, context, request.user, request.setting), axes)
    refuse_partial_runs(config["trainer"])
    if any("max_epochs" in _section(layer, "trainer") for layer in request.user):
        _refuse_endless(config["trainer"])
    return config


WHOLE: Config = {
    "limit_train_batches": (None, 1.0), "limit_test_batches": (None, 1.0), "overfit_batches": (0.0,),
    "fast_dev_run": (False,), "barebones": (False,),
}  # fmt: skip


def refuse_partial_runs(trainer: Config) -> None:
    """Raise ConfigError where a trainer would fit or test on a part, or take no step: its accuracy is no cell's."""
    for key, values in WHOLE.items():
        value = plain(trainer.get(key, values[0]))
        if isinstance(value, int) and not isinstance(value, bool) and key != "overfit_batches":
            whole = False  # a whole number counts batches
        else:
            whole = value in values
        if not whole:
            raise ConfigError(f"a bench cell is a whole run: trainer.{key} {value} is for `clipbench fit`")
    if plain(trainer.get("max_time")) is not None:
        raise ConfigError("a bench cell is a whole run on any machine: trainer.max_time is for `clipbench fit`")
    for key, least in (("accumulate_grad_batches", 1), ("gradient_clip_val", 0)):
        value = plain(trainer.get(key))
        if isinstance(value, int | float) and value < least:
            raise ConfigError(f"trainer.{key} {value}: it is at least {least}")
    if plain(trainer.get("max_steps")) == 0:
        raise ConfigError("a bench cell is a whole run: trainer.max_steps 0 trains nothing")


def _refuse_endless(trainer: Config) -> None:
    """Raise ConfigError where a user asks for a fit without an end of its own."""
    epochs, steps = (plain(trainer.get(key)) for key in ("max_epochs", "max_steps"))
    if steps in (None, -1) and epochs is None:
        raise ConfigError("trainer.max_epochs null is no length (Lightning would take 1,000 epochs): give a number")
    if steps in (None, -1) and epochs == -1 and not trainer.get("callbacks"):
        raise ConfigError("trainer.max_epochs -1 has no end: give a number, or trainer.max_steps beside it")


def data_context(section: Config, suite: str, dataset: str) -> dict[str, str]:
    """`suite` and `dataset` that overrides match on: those of the card where there is one, else those given."""
    if section["class_path"].rpartition(".")[2] != "FewShotDataModule":
        return {"suite": suite, "dataset": dataset}
    from clipbench.data.cards import load_card

    card = load_card(section.get("init_args", {}).get("dataset", "mini/eurosat"))
    return {"suite": card.suite, "dataset": card.key}


def check_user_layers(layers: Sequence[Config], recipe: Recipe) -> None:
    """Refuse settings that a bench has words of its own for, and those that would make the recipe another one.

    Raises:
        ConfigError: such a setting, with the right option.
    """
    for layer in layers:
        model, data = _section(layer, "model"), _section(layer, "data")
        named = str(model.get("class_path", recipe.method)).rpartition(".")[2]
        if named != recipe.method:
            raise ConfigError(f"recipe '{recipe.name}' is {recipe.method}; for {named} name its recipe with --method")
        arguments = data.get("init_args") or {}
        for key, option in (("shots", "--shots"), ("seed", "--seeds"), ("dataset", "--datasets"), ("root", "--root")):
            if key in arguments:
                raise ConfigError(f"a bench takes data.{key} from {option}")
        if "class_path" in data:
            raise ConfigError("a bench takes its data from --suite; a folder or manifest stands in a suite file")
        if "backbone" in (model.get("init_args") or {}):
            raise ConfigError("a bench takes model.backbone from --backbone, or from the suite")
        if layer.get("protocol") or "protocol" in arguments:
            raise ConfigError("a bench takes the protocol from --protocol")


def _section(layer: Config, name: str) -> Config:
    section = layer.get(name) or {}
    if not isinstance(section, dict):
        raise ConfigError(
            f"'{name}' is a section of settings, not '{section}'; one setting looks like {name}.KEY=VALUE"
        )
    return section
