"""What a config names: its sections, its method, its data module, dataset and protocol; told apart without torch."""

from __future__ import annotations

from clipbench.bench.recipe import Config
from clipbench.data.cards import load_card
from clipbench.errors import ConfigError, UnknownName
from clipbench.methods import registered
from clipbench.protocols import protocol

DATA_MODULES = ("FewShotDataModule", "ImageFolder", "Manifest")


def check_names(config: Config) -> None:
    """Refuse names that nobody knows, with the nearest one that somebody does.

    Settings are looked at where the classes are at hand (`objects.check_keys`); a class by its import path, too.

    Raises:
        UnknownName: an unknown section, method, data module, dataset or protocol.
        ConfigError: a section that is none, or a setting in the wrong place.
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
    model, data = (config.get(section) or {} for section in ("model", "data"))
    for name, section_ in (("model", model), ("data", data)):
        for key in section_:
            if key not in ("class_path", "init_args"):
                raise ConfigError(f"'{name}.{key}': settings of {name} stand below {name}.init_args")
    method = str(model.get("class_path", "ZeroShot"))
    if "." not in method and method not in registered():
        raise UnknownName("method", method, registered())
    arguments = data.get("init_args") or {}
    protocol(arguments.get("protocol", "base_to_novel"))
    name = str(data.get("class_path", "FewShotDataModule"))
    if "." not in name and name not in DATA_MODULES:
        raise UnknownName("data module", name, DATA_MODULES)
    if name == "FewShotDataModule" and arguments.get("dataset"):
        load_card(str(arguments["dataset"]))
