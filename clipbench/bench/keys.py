"""What a config may say, refused before the parser reads it: keys that nobody reads, with the nearest that one does."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn, get_args, get_type_hints

import lightning as L
from jsonargparse import Namespace

from clipbench.data import module as data_modules
from clipbench.errors import ConfigError, UnknownName
from clipbench.methods import METHODS, imported_module, method_class
from clipbench.methods.arguments import settings_of
from clipbench.protocols import protocol
from clipbench.recipes.arguments import BESIDE, RIGHT_WORDS
from clipbench.recipes.recipe import Config
from clipbench.recipes.settings import OF_CLASSES, SECTIONS, class_paths
from clipbench.records.settings import flat

# the others cast what is trained in place
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
CLASS = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")  # else the parser would open the file of that name
DATA_MODULES = ("FewShotDataModule", "ImageFolder", "Manifest")
KNOWN = (*SECTIONS, *BESIDE)


def check_keys(config: Config) -> None:
    """Refuse keys that nobody reads, with the nearest one that somebody does.

    Raises:
        UnknownName: an unknown section, setting, method or data module.
        ConfigError: a section, setting or class in a form that nothing takes.
    """
    for key in config:
        if key == "protocol":
            raise ConfigError("the protocol is a setting of the data: data.init_args.protocol")
        if key not in KNOWN:
            named = config.get("model") if isinstance(config.get("model"), dict) else {}
            refuse_bare(key, (named or {}).get("class_path"))
    for section in SECTIONS:
        if not isinstance(config.get(section) or {}, dict):
            raise ConfigError(f"'{section}' is a section of settings, not '{config[section]}'")
    model, data, trainer = (config.get(section) or {} for section in SECTIONS)
    for name, section_ in (("model", model), ("data", data)):
        for key in section_:
            if key not in ("class_path", "init_args"):
                raise ConfigError(f"'{name}.{key}': settings of {name} stand below {name}.init_args")
    if "class_path" in model:
        kind = method_class(str(model["class_path"]))
        _refuse_unknown(model.get("init_args") or {}, kind, kind.__name__)
    protocol((data.get("init_args") or {}).get("protocol", "base_to_novel"))
    name = str(data.get("class_path", "FewShotDataModule"))
    if "." not in name:
        if name not in DATA_MODULES:
            raise UnknownName("data module", name, DATA_MODULES)
        _refuse_unknown(data.get("init_args") or {}, getattr(data_modules, name), name)
    for section_, key in ((data, "data"), (trainer, "trainer")):
        for path in class_paths(section_):
            if "." in path:  # else the parser would say what its import raised without the place
                imported_module(path.rpartition(".")[0], f"{key} '{path}'")
    _refuse_unknown(trainer, L.Trainer, "the trainer")
    for key in OF_CLASSES:
        for one in trainer[key] if isinstance(trainer.get(key), list) else [trainer.get(key)]:
            _check_class(f"trainer.{key}", one, listed=isinstance(trainer.get(key), list))
    refuse_nulls("trainer", L.Trainer, trainer)
    if trainer.get("precision") not in (None, *PRECISIONS):
        raise UnknownName("trainer.precision (what is trained stays float32)", str(trainer["precision"]), PRECISIONS)


def refuse_bare(key: str, method: Any = None, option: bool = False) -> NoReturn:
    """Raise ConfigError for a key without its section, with the section whose class has such a setting.

    Args:
        key: as given.
        method: that of the config by its name or path, beside our own.
        option: whether it is a word of a command line.
    """
    dashes, kind = ("--", "option") if option else ("", "config key")
    what = f"there is no option --{key}" if option else f"'{key}' is no key of a config"
    if key in RIGHT_WORDS:
        raise ConfigError(f"{what}: {RIGHT_WORDS[key]}")
    known = (*KNOWN, "protocol", *(("backbone", "config", "print_config") if option else ()))
    kinds: list[tuple[str, type]] = [
        ("model", method_class(name)) for name in (*METHODS, *([method] if method else []))
    ]
    kinds += [*(("data", getattr(data_modules, name)) for name in DATA_MODULES), ("trainer", L.Trainer)]
    sections = {setting: section for section, kind in kinds for setting in settings_of(kind)}
    near = [key] if key in sections else difflib.get_close_matches(key, sections, n=1, cutoff=0.75)
    if near and (key in sections or not difflib.get_close_matches(key, known, n=1, cutoff=0.75)):
        raise ConfigError(f"{what}; did you mean '{dashes}{sections[near[0]]}.{near[0]}'?")
    raise UnknownName(kind, f"{dashes}{key}", [f"{dashes}{one}" for one in known])


def _refuse_unknown(given: Mapping[str, Any], kind: type, name: str) -> None:
    known = settings_of(kind)
    for key in given:
        if key not in known:
            raise UnknownName(f"setting of {name}", key, known)


def _check_class(place: str, value: Any, listed: bool) -> None:
    """Raise ConfigError for what no class of the trainer can be read from."""
    if isinstance(value, Mapping | Namespace):
        if "class_path" not in value:
            raise ConfigError(f"{place}: settings of a class that is not named: give {place}=CLASS")
    elif value == "":
        raise ConfigError(f"{place}: no class is named; give its name, as {place}=CLASS")
    elif not (CLASS.fullmatch(value) if isinstance(value, str) else not listed and value in (None, True, False)):
        raise ConfigError(f"{place}: '{str(value)[:100]}' is no class; give the name of one")


def refuse_nulls(place: str, kind: type, given: Mapping[str, Any]) -> None:
    """Raise ConfigError for a null where a class of Lightning takes none; the parser passes it on."""
    for key, value in given.items():
        if value is None and key in _never_null(kind):
            raise ConfigError(f"{place}.{key} takes no null: leave it out for its default")


@functools.cache
def _never_null(kind: type) -> tuple[str, ...]:
    """The arguments whose type leaves no room for None, as far as it is a plain one."""
    try:
        hints = get_type_hints(kind.__init__)  # type: ignore[misc]
    except NameError:  # a name that is only imported for type checkers
        return ()
    parameters = inspect.signature(kind).parameters.values()
    nullable = {one.name for one in parameters if one.default is None}
    plain = {key for key, hint in hints.items() if hint is not Any and type(None) not in get_args(hint)}
    return tuple(plain - nullable - {"return"})


def refuse_not_finite(config: Config) -> None:
    """Raise ConfigError, with the key, for a setting that no record could hold."""
    for key, value in flat(config).items():
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise ConfigError(f"{key} is {number}: a setting is a finite number")


def with_whole_path(config: Config) -> Config:
    """The config with its method by the whole path: the parser would look for a short name in every class there is."""
    model = config.get("model") or {}
    if "class_path" not in model:
        return config
    kind = method_class(str(model["class_path"]))
    return config | {"model": model | {"class_path": f"{kind.__module__}.{kind.__qualname__}"}}
