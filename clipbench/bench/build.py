"""Objects from a config: the one way to build data, method and trainer, the parser of LightningCLI in subclass mode."""

from __future__ import annotations

import argparse
import functools
import json
import logging
import os
import re
import warnings
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from clipbench.backbone.clip import describe_backbone
from clipbench.data import module as data_modules
from clipbench.data.module import DataModule
from clipbench.data.task import Task
from clipbench.errors import ConfigError, UnknownName
from clipbench.methods import method_class
from clipbench.methods.arguments import settings_of
from clipbench.methods.base import Method
from clipbench.protocols import protocol
from clipbench.recipes.recipe import Config, merge

# Lightning's CLI calls jsonargparse by names that are on their way out; that is for its next release to mend
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
# the others cast what is trained in place
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
DATA_MODULES = ("FewShotDataModule", "ImageFolder", "Manifest")


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
            parser_kwargs={"exit_on_error": False} if not run else {},
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Our own key beside model, data and trainer."""
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
        super().instantiate_classes()
        self.datamodule.preprocessing = self.model.preprocessing


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
    parser = _parser()
    try:
        namespace = parser.parse_object(_for_parser(config))
    except argparse.ArgumentError as error:
        raise ConfigError(one_sentence(str(error))) from error
    result = parser.dump(namespace, format="json", skip_none=False)
    return {
        key: value for key, value in json.loads(result).items() if key not in ("config", "seed_everything", "optimizer")
    }


@functools.cache
def _parser() -> LightningArgumentParser:
    """A parser that builds nothing; making it takes three quarters of the time of resolving a config."""
    smallest = {"model": {"class_path": "ZeroShot"}, "data": {"class_path": "FewShotDataModule"}}
    return ClipbenchCLI(with_whole_path(smallest), build=False).parser


def _for_parser(config: Config) -> Config:
    return with_whole_path({key: value for key, value in config.items() if key != "ckpt_path"})


def with_whole_path(config: Config) -> Config:
    """The config with its method by the whole path: the parser would look for a short name in every class there is."""
    model = config.get("model") or {}
    if "class_path" not in model:
        return config
    kind = method_class(str(model["class_path"]))
    return config | {"model": model | {"class_path": f"{kind.__module__}.{kind.__qualname__}"}}


def with_precision(config: Config) -> Config:
    """The config with the precision of this device where none is set: bf16-mixed where CUDA is, float32 elsewhere."""
    return merge({"trainer": {"precision": "bf16-mixed" if torch.cuda.is_available() else "32-true"}}, config)


def one_sentence(text: str) -> str:
    """jsonargparse's message as one line, without the type zoo."""
    lines = [line.strip(" -") for line in text.splitlines()]
    noise = r"(Subtypes|Errors|Expected a <class 'NoneType'>|Does not validate against any|Given value( type|: Name))"
    useful = [line for line in lines if line and not re.match(noise, line)]
    return "; ".join(useful)


def check_keys(config: Config) -> None:
    """Refuse keys that nobody reads, with the nearest one that somebody does.

    Raises:
        UnknownName: an unknown section, setting, method or data module.
    """
    known = ("model", "data", "trainer", "weights", "ckpt_path")
    for key in config:
        if key == "protocol":
            raise ConfigError("the protocol is a setting of the data: data.init_args.protocol")
        if key not in known:
            raise UnknownName("config key", key, (*known, "protocol"))  # on the command line a word of its own
    for section in ("model", "data", "trainer"):
        if not isinstance(config.get(section) or {}, dict):
            raise ConfigError(f"'{section}' is a section of settings, not '{config[section]}'")
    model, data, trainer = (config.get(section) or {} for section in ("model", "data", "trainer"))
    for name, section_ in (("model", model), ("data", data)):
        for key in section_:
            if key not in ("class_path", "init_args"):
                raise ConfigError(f"'{name}.{key}': settings of {name} stand below {name}.init_args")
    if "class_path" in model:
        kind = method_class(str(model["class_path"]))
        for key in model.get("init_args") or {}:
            if key not in settings_of(kind):
                raise UnknownName(f"setting of {kind.__name__}", key, settings_of(kind))
    protocol((data.get("init_args") or {}).get("protocol", "base_to_novel"))
    name = str(data.get("class_path", "FewShotDataModule"))
    if "." not in name and name not in DATA_MODULES:
        raise UnknownName("data module", name, DATA_MODULES)
    if "." not in name:
        accepted = settings_of(getattr(data_modules, name))
        for key in data.get("init_args") or {}:
            if key not in accepted:
                raise UnknownName(f"setting of {name}", key, accepted)
    for key in trainer:
        if key not in settings_of(L.Trainer):
            raise UnknownName("setting of the trainer", key, settings_of(L.Trainer))
    if trainer.get("precision") not in (None, *PRECISIONS):
        raise UnknownName("trainer.precision (what is trained stays float32)", str(trainer["precision"]), PRECISIONS)


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


def quiet_lightning() -> None:
    """Silence what Lightning says at every trainer: hardware, tips, loader workers."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for pattern in (
        r".*does not have many workers.*",
        r".*The number of training batches.*",
        r".*`training_step` returned `None`.*",
        r".*`LightningModule.configure_optimizers` returned `None`.*",
        r".*GPU available but not used.*",
        r".*Checkpoint directory .* exists and is not empty.*",
        r".*lr_scheduler.step\(\).*before.*optimizer.step\(\).*",
        r".*No negative samples.*",
        r".*litlogger.*",
        r".*Total length of `DataLoader` across ranks is zero.*",
        r".*tensorboardX.*",
        r".*in eval mode at the start of training.*",
        r".*isinstance\(treespec, LeafSpec\).*",
    ):
        warnings.filterwarnings("ignore", message=pattern)
