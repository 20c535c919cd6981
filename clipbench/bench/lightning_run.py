"""`clipbench fit`, `validate`, `test`: one LightningCLI run on the same merged config that the bench uses.

A wrong word is answered without torch wherever that can be known without it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from clipbench.bench.arguments import choose_recipe, split_arguments
from clipbench.bench.cell_config import data_context, default_precision
from clipbench.bench.keys import check_names
from clipbench.bench.recipe import Config, Recipe, known_recipes, merge, resolve
from clipbench.bench.start import start_of
from clipbench.data.preprocessing import backbone_of_suite
from clipbench.errors import ConfigError

OF_TRAINER_METHODS = ("ckpt_path", "verbose", "weights_only")
ALONE: Config = {"devices": 1, "log_every_n_steps": 1, "num_sanity_val_steps": 0}


def merged_config(words: Sequence[str]) -> tuple[Config, Config, str]:
    """The merged config of a command line, the arguments of the trainer's method, and the recipe's name.

    Raises:
        ConfigError: a wrong word, key or value.
    """
    configs, settings = split_arguments(words)
    of_method = {key: settings.pop(key) for key in OF_TRAINER_METHODS if key in settings}
    if of_method.get("ckpt_path") and not Path(str(of_method["ckpt_path"])).is_file():
        raise ConfigError(f"there is no checkpoint '{of_method['ckpt_path']}'")
    recipe, layers = choose_recipe(configs, settings)
    top: Config = {}
    for layer in layers:
        top = merge(top, layer)
    base: Config = {
        "model": {"init_args": {}},
        "data": {"class_path": "FewShotDataModule", "init_args": {}},
        "trainer": dict(ALONE),
    }
    context = _context(merge(merge(base, recipe.sections), top))
    base["model"]["init_args"]["backbone"] = backbone_of_suite(context["suite"])
    context.setdefault("backbone", base["model"]["init_args"]["backbone"])
    config = resolve(recipe, base, context, layers)
    check_names(config)
    config["trainer"] = {"precision": default_precision()} | config["trainer"]  # asks torch
    return config, of_method, recipe.name


def _context(config: Config) -> dict[str, Any]:
    """What overrides match on, read off the config without overrides."""
    data, model = config["data"], config["model"]
    arguments = data.get("init_args") or {}
    folder = Path(str(arguments.get("root") or arguments.get("path") or "own")).stem
    context = data_context(data, "own", folder) | {
        "protocol": arguments.get("protocol", "base_to_novel"),
        "shots": arguments.get("shots", 16),
    }
    given = (model.get("init_args") or {}).get("backbone")
    return context | ({"backbone": given} if given else {})


def run_lightning(subcommand: str, words: Sequence[str]) -> int:
    """Run `fit`, `validate` or `test`.

    Raises:
        ConfigError: a wrong word, key or value.
    """
    if "--help" in words or "-h" in words:
        print(USAGE.format(subcommand=subcommand))
        print("recipes:", ", ".join(known_recipes()))
        return 0
    words = list(words)
    print_config = "--print_config" in words
    if print_config:
        words.remove("--print_config")
    config, of_method, name = merged_config(words)
    if isinstance(start_of(config, name), Recipe):
        start = config["model"]["init_args"]["start"]
        raise ConfigError(
            f"'{name}' starts from recipe '{start}', which `clipbench bench --method {name}` runs first; "
            f"`clipbench {subcommand}` takes a file of learned weights: --model.start FILE"
        )
    from clipbench.bench.objects import resolved  # here: it imports Lightning, which a wrong word need not wait for

    whole = resolved(config)
    if print_config:
        yaml.safe_dump(whole, sys.stdout, sort_keys=False)
        return 0
    from clipbench.bench.run_cli import run_subcommand

    run_subcommand(subcommand, config | of_method, name)
    return 0


USAGE = """usage: clipbench {subcommand} --config RECIPE [--config FILE ...] [--SECTION.KEY VALUE ...]

One LightningCLI run. RECIPE is a packaged recipe or a YAML file with model, data, trainer and overrides.

  --model NAME --model.KEY VALUE      the method and its settings
  --data NAME --data.KEY VALUE        FewShotDataModule (default), ImageFolder or Manifest, and its settings
  --trainer.KEY VALUE                 any argument of Lightning's Trainer
  --protocol NAME                     base_to_novel (default) or few_shot; short for --data.protocol
  --weights FILE                      start from, or test, what was learned before
  --ckpt_path FILE                    resume from a checkpoint
  --print_config                      print the resolved config and stop

example: clipbench {subcommand} --config clipfit --data.dataset mini/dtd --trainer.max_epochs 5
"""
