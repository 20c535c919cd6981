"""A request from the words of `clipbench bench`; torch-free, so that a wrong call is answered at once."""

from __future__ import annotations

import argparse

from clipbench.bench.plan import Request, requested_names
from clipbench.bench.recipe import Config, from_dotted, load_recipe, read_config, read_setting
from clipbench.bench.suites import load_suite
from clipbench.errors import ConfigError
from clipbench.protocols.base import protocol


def request_from(options: argparse.Namespace) -> Request:
    """The request that a command line makes.

    Raises:
        ConfigError: an unknown recipe, suite, dataset or protocol (the nearest is named), or a senseless value.
    """
    suite = load_suite(options.suite)
    datasets = requested_names(options.datasets)
    suite.choose(list(datasets))
    protocol(options.protocol)
    recipes = requested_names(options.method)
    if not recipes:
        raise ConfigError("--method names no recipe (clipbench list methods)")
    if options.jobs is not None and options.jobs < 1:
        raise ConfigError(f"--jobs {options.jobs}: at least one process is needed")
    if options.shots < 1:
        raise ConfigError(f"--shots {options.shots}: at least one image per class is needed")
    try:
        seeds = tuple(int(word) for word in requested_names(options.seeds))
    except ValueError as error:
        raise ConfigError(f"--seeds '{options.seeds}': seeds are whole numbers separated by commas") from error
    if not seeds or min(seeds) < 0:
        raise ConfigError(f"--seeds '{options.seeds}': at least one seed, none below 0")
    user: list[Config] = [read_config(name)[1] for name in options.config]
    user.append(from_dotted(dict(read_setting(text) for text in options.set)))
    return Request(
        recipes=tuple(load_recipe(name) for name in dict.fromkeys(recipes)),
        suite=suite, datasets=datasets, seeds=tuple(dict.fromkeys(seeds)), shots=options.shots,
        protocol=options.protocol, backbone=options.backbone, setting=options.setting,
        data_root=options.root, user=tuple(user),
    )  # fmt: skip
