"""Objects from a config: the one way to build data, method and trainer, the parser of LightningCLI in subclass mode."""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pkgutil import resolve_name
from typing import Any, Union, get_args, get_origin

import lightning as L
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from clipbench.backbone.clip import describe_backbone
from clipbench.bench.keys import DATA_MODULES, check_keys, refuse_not_finite, refuse_nulls, with_whole_path
from clipbench.bench.monitors import MonitorsAreLogged, monitored, refuse_unvalidated
from clipbench.bench.parser_messages import CLASSES, one_sentence
from clipbench.bench.trainer import SHORT_PRECISIONS, check_trainer, make_trainer, on_cuda, quiet_lightning
from clipbench.data.module import DataModule
from clipbench.data.task import Task
from clipbench.errors import ConfigError, NotHere, UnknownName
from clipbench.methods.base import Method
from clipbench.recipes.arguments import OF_TRAINER_METHODS
from clipbench.recipes.recipe import Config, merge

# Lightning's CLI calls jsonargparse by names that are on their way out; that is for its next release to mend
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")


class ClipbenchCLI(LightningCLI):
    """LightningCLI with our base classes and no seeding of global state.

    Args:
        args: the merged config.
        run: whether `args` holds a subcommand that is to be run.
        build: whether to build the objects (else only `config` is resolved).
    """

    def __init__(self, args: Config | list[str], run: bool = False, build: bool = True) -> None:
        self._build = build
        super().__init__(
            Method,
            DataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=args,
            run=run,
            seed_everything_default=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            save_config_callback=SaveConfigCallback if run and "fit" in args else None,
            save_config_kwargs={"overwrite": True},
            parser_kwargs={"exit_on_error": False} | {name: {"exit_on_error": False} for name in self.subcommands()},
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Our own key beside model, data and trainer; called once all of those are there."""
        _whole_numbers_first(parser)
        parser.add_argument("--weights", type=str | None, default=None, help="load what was learned from this file")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the merged config; the real command line has been read before."""
        self.config = parser.parse_object(args) if isinstance(args, dict) else parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Keep the merged config: a checkpoint's own arguments would be a second source."""

    def instantiate_classes(self) -> None:
        """Build; the data module is told what the backbone wants, for loaders opened outside of a trainer."""
        if not self._build:
            return
        for kind in (Method, DataModule):  # called later, out of the parser, which would wrap what they raise
            self.parser.add_instantiator(_later, kind, subclasses=True)
        self.config_init = self.parser.instantiate_classes(self.config)
        self.datamodule, self.model = (self._get(self.config_init, section)() for section in ("data", "model"))
        self.datamodule.preprocessing = self.model.preprocessing
        self.trainer = self.instantiate_trainer()
        callbacks: list[L.Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        if [*monitored(callbacks)]:
            callbacks.insert(0, MonitorsAreLogged())

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[L.Callback]) -> L.Trainer:
        self.trainer_class = _trainer
        return super()._instantiate_trainer(config, callbacks)


def _whole_numbers_first(parser: LightningArgumentParser) -> None:
    """Keeps a whole number where a setting takes int or float: `limit_test_batches` 1 is a batch, 1.0 is all of them.

    The parser tries the members of a union in their order, and typing gives all of `Optional[Union[int, float]]` and
    `Optional[Union[float, int]]` the order that the process came upon first, in whichever library.
    """
    for action in parser._actions:
        members = [*get_args(hint := getattr(action, "_typehint", None))]
        if get_origin(hint) is Union and int in members and float in members[: members.index(int)]:
            members.remove(int)
            members.insert(members.index(float), int)
            action._typehint = Union[tuple(members)]  # type: ignore[attr-defined]  # noqa: UP007


def _later(kind: Callable[..., Any], *args: Any, **settings: Any) -> Callable[[], Any]:
    return functools.partial(kind, *args, **settings)


def _trainer(**settings: Any) -> L.Trainer:
    return make_trainer(settings)


def build(config: Config) -> ClipbenchCLI:
    """Data module, method and trainer of a merged config.

    Raises:
        ConfigError: a key or value that does not fit; names the nearest right key.
    """
    check_keys(config)
    quiet_lightning()
    try:
        return ClipbenchCLI(_for_parser(config))
    except argparse.ArgumentError as error:
        raise ConfigError(one_sentence(str(error))) from error


def resolved(config: Config) -> Config:
    """The config with every default filled in, as the record keeps it.

    Raises:
        ConfigError: a key or value that does not fit.
    """
    check_keys(config)
    quiet_lightning()
    namespace = _parsed(config)
    try:
        result = json.loads(_parser().dump(namespace, format="json", skip_none=False))
    except ValueError as error:  # a class of Lightning with a default that is not plain data
        raise ConfigError(
            f"a config holds plain data, {one_sentence(str(error))}: give that setting as text"
        ) from error
    whole = {key: value for key, value in result.items() if key not in ("config", "seed_everything", "optimizer")}
    refuse_not_finite(whole)
    if isinstance(whole["trainer"]["callbacks"], dict):
        whole["trainer"]["callbacks"] = [whole["trainer"]["callbacks"]]
    refuse_unvalidated(whole["trainer"])
    for callback in whole["trainer"]["callbacks"] or ():
        refuse_nulls("trainer.callbacks", resolve_name(callback["class_path"]), callback.get("init_args") or {})
    section = json.dumps(whole["trainer"], sort_keys=True)
    if section not in _taken:
        try:
            settings = _parser().instantiate_classes(Namespace(trainer=namespace.trainer)).trainer
        except ValueError as error:  # a callback or logger that refuses its settings, or misses its library
            kind = NotHere if "Requirement '" in str(error) else ConfigError
            raise kind(f"trainer: {one_sentence(str(error))}") from error
        check_trainer(settings.as_dict())
        _taken.add(section)
    return whole


def printed(config: Config, flags: Sequence[str] = ()) -> str:
    """The config with every default as YAML that `--config` reads again.

    Args:
        config: merged.
        flags: of LightningCLI's `--print_config`: `skip_null`, `skip_default`, `comments`.

    Raises:
        ConfigError: a key or value that does not fit, or comments without the package that writes them.
    """
    if "comments" in flags and importlib.util.find_spec("ruamel") is None:
        raise ConfigError("--print_config=comments needs the package ruamel.yaml; --model.help shows the same")
    resolved(config)
    namespace = _parsed(config)
    for key in ("config", "seed_everything"):
        namespace.pop(key, None)
    given = {"skip_none": "skip_null" in flags, "skip_default": "skip_default" in flags}
    return _parser().dump(namespace, format="yaml", with_comments="comments" in flags, **given)


def print_help(subcommand: str, option: str, name: str) -> None:
    """What a class takes, from LightningCLI's parser.

    Args:
        subcommand: of the usage line.
        option: that takes the class, as `model` or `trainer.logger`; `trainer` itself is shown whole.
        name: of the class; empty: a method or data module without what only some have.

    Raises:
        ConfigError: no such option or class.
    """
    if option not in ("model", "data", "trainer", *CLASSES):
        raise UnknownName("option with a help of its own", option, ("model", "data", "trainer", *CLASSES))
    parser = LightningArgumentParser(prog=f"clipbench {subcommand}", exit_on_error=False, add_help=False)
    parser.add_lightning_class_args(L.Trainer, "trainer")
    if option == "trainer":
        parser.print_help()
        return
    parser.add_lightning_class_args(Method, "model", subclass_mode=True)
    parser.add_lightning_class_args(DataModule, "data", subclass_mode=True)
    if name and option in ("model", "data"):
        check_keys({option: {"class_path": name}})
        name = with_whole_path({option: {"class_path": name}})[option]["class_path"]
    elif option == "data":
        name = DATA_MODULES[0]
    try:
        parser.parse_args([f"--{option}.help", *([name] if name else [])])
    except argparse.ArgumentError as error:
        raise ConfigError(f"--{option}.help: {one_sentence(str(error))}") from error
    except SystemExit as end:
        if end.code:
            raise


_taken: set[str] = set()  # sections of the trainer that Lightning has taken


def _parsed(config: Config) -> Namespace:
    try:
        return _parser().parse_object(_for_parser(config))
    except argparse.ArgumentError as error:
        raise ConfigError(one_sentence(str(error))) from error


@functools.cache
def _parser() -> LightningArgumentParser:
    """A parser that builds nothing; making it takes three quarters of the time of resolving a config."""
    smallest = {"model": {"class_path": "ZeroShot"}, "data": {"class_path": "FewShotDataModule"}}
    return ClipbenchCLI(with_whole_path(smallest), build=False).parser


def _for_parser(config: Config) -> Config:
    return with_whole_path({key: value for key, value in config.items() if key not in OF_TRAINER_METHODS})


def with_precision(config: Config) -> Config:
    """The config with the precision of its device where none is set: bf16-mixed on a CUDA device, float32 elsewhere."""
    trainer = section if isinstance(section := config.get("trainer"), Mapping) else {}
    default, given = "bf16-mixed" if on_cuda(trainer) else "32-true", trainer.get("precision")
    precision = default if given is None else SHORT_PRECISIONS.get(str(given), given)
    return merge(config, {"trainer": {"precision": precision}})


def method_without_weights(kind: type[Method], arguments: Mapping[str, Any], classes: int) -> Method:
    """A method set up on a backbone without weights, for so many classes, and without its `start`.

    Raises:
        ConfigError: a wrong argument, or a selection that means nothing on this backbone.
        BackboneError: the backbone lacks an ability that the method requires.
    """
    method = kind(**(dict(arguments) | ({"start": None} if "start" in arguments else {})))
    names = ("first class", "second class", "third class")[:classes]
    method.setup(task=Task("", None, names, ()), backbone=describe_backbone(method.backbone_name))
    return method
