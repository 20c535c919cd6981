"""`clipbench fit`, `validate`, `test`: one LightningCLI run on the same merged config that the bench uses."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipbench.backbone.spec import usual_name
from clipbench.commands import LIGHTNING
from clipbench.data.preprocessing import backbone_of_suite
from clipbench.errors import ConfigError
from clipbench.methods import method_class
from clipbench.recipes.arguments import BESIDE, FILES, CommandLine, choose_recipe, classes_of, read_words
from clipbench.recipes.cell_config import data_context
from clipbench.recipes.recipe import Config, Recipe, known_recipes, merge, read_config, resolve
from clipbench.recipes.settings import SECTIONS, plain
from clipbench.recipes.start import start_of

ALONE: Config = {"devices": 1, "log_every_n_steps": 1, "num_sanity_val_steps": 0}


def add_parser(commands: Any) -> None:
    """Names and help of the three; LightningCLI reads their words."""
    for name in LIGHTNING:
        commands.add_parser(name, help=f"one LightningCLI run: {name} (clipbench {name} --help)")


def merged_config(line: CommandLine) -> tuple[Config, str]:
    """The merged config of a command line and the recipe's name; without torch.

    Only the precision is left to the device that runs it, unless somebody sets it.

    Raises:
        ConfigError: a wrong word, key or value.
    """
    recipe, layers = choose_recipe(line.configs, line.settings)
    base: Config = {
        "model": {"init_args": {}},
        "data": {"class_path": "FewShotDataModule", "init_args": {}},
        "trainer": dict(ALONE),
    }
    context = _context(functools.reduce(merge, layers, merge(base, recipe.sections)))
    base["model"]["init_args"]["backbone"] = backbone_of_suite(context["suite"])
    context.setdefault("backbone", base["model"]["init_args"]["backbone"])
    return resolve(recipe, base, context, layers), recipe.name


def _context(config: Config) -> dict[str, Any]:
    """What overrides match on, read off the config without overrides."""
    data, model = config["data"], config["model"]
    arguments = data.get("init_args") or {}
    folder = Path(str(arguments.get("root") or arguments.get("path") or "own")).stem
    context = data_context(data, "own", folder) | {
        "protocol": arguments.get("protocol", "base_to_novel"),
        "shots": plain(arguments.get("shots", 16)),
    }
    given = (model.get("init_args") or {}).get("backbone")
    return context | ({"backbone": usual_name(str(given))} if given else {})


def run(subcommand: str, words: Sequence[str]) -> int:
    """Run `fit`, `validate` or `test`.

    Raises:
        ConfigError: a wrong word, key or value.
    """
    if "--help" in words or "-h" in words:
        print(USAGE.format(subcommand=subcommand))
        print("recipes:", ", ".join(known_recipes()))
        return 0
    line = read_words(words)
    for key, _ in line.settings:
        if "." not in key and key not in (*SECTIONS, *BESIDE):
            from clipbench.bench.keys import refuse_bare

            refuse_bare(key, option=True)
    if line.help is not None:
        option, named = line.help
        if option == "model" and not named and (line.configs or line.settings):
            named = merged_config(line)[0]["model"]["class_path"]
        from clipbench.bench.build import print_help

        print_help(subcommand, option, named)
        return 0
    if subcommand != "fit" and (source := _learned(line)):
        return _measure(subcommand, line, source)
    config, name = merged_config(line)
    _check_beside(subcommand, config, begins=line.print_config is None)
    if isinstance(start_of(config, name), Recipe):
        start = config["model"]["init_args"]["start"]
        raise ConfigError(
            f"'{name}' starts from recipe '{start}', which `clipbench bench --method {name}` runs first; "
            f"`clipbench {subcommand}` takes a file of learned weights: --model.start FILE"
        )
    from clipbench.bench.build import printed, resolved, with_precision

    config = with_precision(config)
    if line.print_config is not None:
        print(printed(config, line.print_config), end="")
        return 0
    whole = resolved(config)
    from clipbench.bench.fit import refuse_untrained, run_subcommand

    if subcommand != "fit":
        refuse_untrained(whole, subcommand)
    files = [file for file in line.configs if file not in known_recipes()]
    for kind in classes_of(files):
        method_class(kind)  # whose weights a `start` may be: files never import what they name
    run_subcommand(subcommand, config, name, files[-1] if files else None)
    return 0


def _learned(line: CommandLine) -> Config:
    """The `weights` or `ckpt_path` that is to be measured, that of the command line before that of a config."""
    for found in (dict(line.settings), *(read_config(name)[1] for name in reversed(line.configs))):
        sources = {key: str(found[key]) for key in FILES if found.get(key)}
        if len(sources) == 2:
            raise ConfigError("weights and ckpt_path are two sources of what was learned: name one of them")
        if sources:
            return sources
    return {}


def _measure(subcommand: str, line: CommandLine, source: Config) -> int:
    """`test` or `validate` of a file that says itself what was learned; a config adds its place and the trainer."""
    if line.print_config is not None:
        raise ConfigError(f"there is no config to print: what is measured stands in '{next(iter(source.values()))}'")
    if "weights" in source:
        from clipbench.methods.header import read_header

        read_header(Path(source["weights"]))  # a wrong file is told before torch is imported
    recipe, layers = choose_recipe(line.configs, line.settings, default="what was learned")
    user = functools.reduce(merge, layers, Config())
    _check_beside(subcommand, {key: value for key, value in user.items() if key not in FILES} | source)
    from clipbench.bench.measure import measure

    measure(subcommand, source, recipe, {key: user[key] for key in user if key not in BESIDE}, dict(ALONE))
    return 0


def _check_beside(subcommand: str, config: Config, begins: bool = True) -> None:
    """Raise ConfigError for an argument of the trainer's method that it does not take."""
    if plain(config.get("weights_only")) not in (None, True):
        raise ConfigError("weights_only is always true: nothing that stands in a checkpoint is ever run")
    if subcommand == "fit" and config.get("verbose") is not None:
        raise ConfigError("there is no option --verbose of fit: it is for validate and test")
    path = config.get("ckpt_path") if begins else None
    if path in ("best", "last", "hpc", "registry"):
        found = sorted(Path("lightning_logs").rglob("*.ckpt"), key=lambda file: file.stat().st_mtime)
        newest = f", the newest here is {found[-1]}" if found else ""
        raise ConfigError(f"--ckpt_path {path}: a run knows no checkpoint of another; give its file{newest}")
    if path and not os.path.isfile(path):  # also where the name is none that could be
        raise ConfigError(f"there is no checkpoint '{path}'")


USAGE = """usage: clipbench {subcommand} --config RECIPE [--config FILE ...] [--SECTION.KEY VALUE ...]

One LightningCLI run. RECIPE is a packaged recipe or a YAML file with model, data, trainer and overrides.

  -c, --config NAME                   a recipe; then files whose settings win over it
  --model NAME --model.KEY VALUE      the method and its settings
  --data NAME --data.KEY VALUE        FewShotDataModule (default), ImageFolder or Manifest, and its settings
  --trainer.KEY VALUE                 any argument of Lightning's Trainer
  --trainer.callbacks+=CLASS          one more callback; --trainer.callbacks.KEY VALUE sets the last one
  --protocol NAME                     base_to_novel (default), few_shot or cross_dataset; short for --data.protocol
  --backbone NAME                     short for --model.backbone; also where learned weights find theirs
  --weights FILE                      fit: go on from what was learned; test, validate: measure it, without a config
  --ckpt_path FILE                    fit: resume from a checkpoint; test, validate: measure it
  --print_config[=skip_null]          print the whole config, for --config to read again, and stop
  --model.help [NAME], --data.help [NAME], --trainer.help, --trainer.logger.help NAME
                                      every setting with its type, default and meaning

example: clipbench {subcommand} --config clipfit --data.dataset mini/dtd --trainer.max_epochs 5
"""
