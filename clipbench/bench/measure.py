"""`test` and `validate` of what was learned: method, settings, classes and data are those that it says itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from clipbench.bench.build import build, resolved, with_precision
from clipbench.bench.fit import stopped_by
from clipbench.bench.outcome_lines import lines_of, refuse_empty_val
from clipbench.bench.stop import StopSignal, StopWhenAsked
from clipbench.errors import ConfigError, MethodError, UnknownName
from clipbench.methods import method_class
from clipbench.methods.arguments import from_stored
from clipbench.methods.base import Method
from clipbench.methods.checkpoint import header_of, read_checkpoint
from clipbench.methods.header import Header
from clipbench.methods.weights_file import class_of, read_learned
from clipbench.recipes.recipe import Config, Recipe, merge
from clipbench.recipes.settings import plain

PLACEHOLDER = "ZeroShot"  # what the parser builds beside data and trainer; the method comes from the file


def learned_method(
    weights: str | None, checkpoint: str | None, kind: type[Method] | None, backbone: str | None
) -> tuple[Header, Callable[[], Method]]:
    """What a file of learned weights or a checkpoint says, and the way to its method.

    Args:
        weights: the file; None: it is a checkpoint.
        checkpoint: the checkpoint; Lightning puts its tensors in place.
        kind: class of the method where the user names it.
        backbone: where its backbone is at hand, if elsewhere.

    Raises:
        MethodError: the file is none of these, damaged, or of another method or backbone.
    """
    if weights is not None:
        learned = read_learned(Path(weights))
        return learned.header, lambda: learned.method(kind, backbone, f"'{weights}': ")
    assert checkpoint is not None
    stored = read_checkpoint(Path(checkpoint))
    header = header_of(stored)
    settings, learner = stored.get("hyper_parameters") or header.init_args, kind or class_of(header)
    if learner.derived:
        raise MethodError(f"'{checkpoint}' holds nothing of {header.method}, which trains nothing: name its --weights")

    def method() -> Method:
        return cast(Method, from_stored(learner, settings, backbone=backbone or header.backbone))

    return header, method


def measure(subcommand: str, source: Config, recipe: Recipe, user: Config, trainer: Config) -> None:
    """Run `test` or `validate` of what was learned, and print what was measured.

    Args:
        subcommand: which of them.
        source: `weights` or `ckpt_path`, a file.
        recipe: says where its class is, where it names one, and how to run.
        user: the user's own settings over it.
        trainer: settings of the trainer under all others.

    Raises:
        ConfigError: a key or value that does not fit, or is not what was learned with.
        MethodError: the file is not what a method learned, or does not fit the data.
        DataError: there is nothing to measure on.
        KeyboardInterrupt: Ctrl-C.
    """
    sections, file, model = recipe.sections, next(iter(source.values())), user.get("model") or {}
    named = model.get("class_path") or sections["model"].get("class_path")
    kind = method_class(str(named)) if named else None
    backbone = (model.get("init_args") or {}).get("backbone")
    header, method_of = learned_method(source.get("weights"), source.get("ckpt_path"), kind, backbone)
    refuse_other_model(model, header, file)
    config = user | {
        "model": {"class_path": PLACEHOLDER},
        "data": data_of(header, sections.get("data") or {}, user.get("data") or {}, file),
        "trainer": merge(merge(trainer, sections.get("trainer") or {}), user.get("trainer") or {}),
    }
    config = with_precision({key: value for key, value in config.items() if key not in source})
    resolved(config)
    method = method_of()
    config["model"] = {"class_path": PLACEHOLDER, "init_args": {"backbone": method.backbone_name}}
    cli, stop = build(config), StopSignal()
    data, run = cli.datamodule, cli.trainer
    data.preprocessing = method.preprocessing
    run.callbacks.append(StopWhenAsked(stop))  # type: ignore[attr-defined]
    if subcommand == "validate":
        refuse_empty_val(data)
    given = {"datamodule": data, "ckpt_path": source.get("ckpt_path"), "verbose": False, "weights_only": True}
    with stopped_by(stop, lambda: run), warnings.catch_warnings():
        for message in (
            "Be aware that when using `ckpt_path`",
            "The dirpath has changed",
        ):  # no callback acts in a test
            warnings.filterwarnings("ignore", message=message)
        getattr(run, subcommand)(method, **given)
    told = f"{file}: {header.recipe or header.method}, learned on '{header.dataset}' ({len(header.classnames)} classes)"
    print(told + (f", measured on '{data.dataset}'" if data.dataset != header.dataset else ""))
    print(*lines_of(method, data, testing=subcommand == "test"), sep="\n")


def refuse_other_model(given: Config, header: Header, source: str) -> None:
    """Raise ConfigError where a setting of the method is named that is not the one that was learned with.

    Args:
        given: the user's own settings of the model.
        header: what was learned says.
        source: its file, for messages.
    """
    for name, value in (given.get("init_args") or {}).items():
        if name not in header.init_args:
            raise UnknownName(f"setting of {header.method} as it was learned", name, header.init_args)
        learned = header.init_args[name]
        if name != "backbone" and learned not in (value, plain(value)) and str(learned) != str(_number(value)):
            raise ConfigError(f"'{source}' was learned with model.{name} {learned}, not {value}: leave it out")


def _number(text: Any) -> Any:
    """A number as Python reads it, 5e-3 for example, which YAML takes for text."""
    with suppress(ValueError, TypeError):
        return float(text)
    return text


def data_of(header: Header, recipe: Config, user: Config, source: str) -> Config:
    """The data section to measure on: what was learned says it, the user's settings win.

    Args:
        header: what was learned says.
        recipe: data section of the recipe, for files that do not say theirs.
        user: the user's own settings of the data.
        source: the file, for messages.

    Raises:
        ConfigError: nobody says which data, or they are not where the file says.
    """
    base: Config = {"class_path": "FewShotDataModule", "init_args": {}}
    if header.data is None:
        found = merge(merge(base, recipe), user)
        if not {"dataset", "root", "path"} & found["init_args"].keys():
            raise ConfigError(
                f"'{source}' does not say which data it was learned on ('{header.dataset}'): add the settings that fit "
                "had, as --data.dataset NAME --protocol few_shot, or --data ImageFolder --data.root FOLDER"
            )
        return found
    data = merge(header.data, user)
    for place in ("root", "path"):
        stored = (data.get("init_args") or {}).get(place)
        if stored and place not in (user.get("init_args") or {}) and not Path(str(stored)).expanduser().exists():
            raise ConfigError(
                f"'{source}' was learned on images in '{stored}', which is not here: say where they are with "
                f"--data.{place} {'FILE' if place == 'path' else 'FOLDER'}"
            )
    return data
