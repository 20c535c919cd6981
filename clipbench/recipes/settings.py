"""Single settings, as `model.lr 0.01`, and how layers of settings come together.

What is typed stays text: the parser reads it by the type of its option, so that a folder `2024` or a template
`{} photo` is taken as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from clipbench.errors import ConfigError
from clipbench.yaml_files import DEEPEST, parse_yaml

Config = dict[str, Any]
SECTIONS = ("model", "data", "trainer")
# arguments of the trainer that take a class with settings of its own
OF_CLASSES = ("callbacks", "logger", "plugins", "profiler", "strategy")
LISTED = OF_CLASSES[:3]  # of which there can be several
NOTHING = ("null", "None", "~")


def read_setting(text: str) -> tuple[str, Any]:
    """`model.lr=0.01` as its key and its value.

    Raises:
        ConfigError: there is no equals sign, or the value cannot be read.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set '{text}': a setting looks like model.lr=0.01")
    return key, typed_value(key, value, f"--set '{shortened(text)}'")


def typed_value(key: str, text: str, what: str) -> Any:
    """The value of one setting: its text, but for classes with their settings, and what lies inside of an argument.

    Args:
        key: dotted.
        text: as typed.
        what: begins the message.

    Raises:
        ConfigError: a key with an empty part; text that is not UTF-8, is nested without end, or should be YAML.
    """
    section, *rest = key.removesuffix("+").split(".")
    if not all((section, *rest)):
        raise ConfigError(f"{what}: '{key}' has an empty part; a setting looks like model.lr")
    try:
        (key + text).encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{ascii(what)[1:-1]}: it is not UTF-8 text") from error
    refuse_deep(text, what)
    if key.endswith("+") and section == "trainer" and rest[:1] not in [[one] for one in LISTED]:
        raise ConfigError(f"{what}: nothing is added to {key[:-1]}, only to trainer.{', trainer.'.join(LISTED)}")
    if text in NOTHING and key.endswith("+"):
        raise ConfigError(f"{what}: null adds nothing; name the class that is added")
    if text in NOTHING and not rest and section in ("model", "trainer"):
        raise ConfigError(f"{what}: a section is never null; a setting looks like {section}.KEY")
    if rest[:1] == ["init_args"]:
        rest = rest[1:]
    nested = section in ("model", "data") and len(rest) > 1
    of_class = section in ("model", "data") if not rest else section == "trainer" and rest[0] in OF_CLASSES
    if nested or (of_class and text.lstrip()[:1] in ("[", "{")):
        return parse_yaml(text, f"{what}: the value is not YAML")
    return None if section != "data" and text in NOTHING else text


def refuse_deep(text: str, what: str) -> None:
    """Raise ConfigError for brackets in brackets that nobody writes."""
    depth = 0
    for letter in text:
        depth += (letter in "[{") - (letter in "]}")
        if depth > DEEPEST:
            raise ConfigError(f"{what}: more than {DEEPEST} levels of nesting")


def shortened(text: str, length: int = 100) -> str:
    """Text for a message."""
    return text if len(text) <= length else f"{text[:length]}..."


def plain(value: Any) -> Any:
    """A number, truth value or nothing where that is what a text says; else the value itself."""
    if not isinstance(value, str):
        return value
    try:
        read = parse_yaml(value, "")
    except ConfigError:
        return value
    return read if isinstance(read, bool | int | float | None) else value


def from_dotted(settings: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Config:
    """`{"model.lr": 1}` to `{"model": {"init_args": {"lr": 1}}}`; `--model X` names a class, `+` appends to a list."""
    result: Config = {}
    for dotted, value in settings.items() if isinstance(settings, Mapping) else settings:
        name = dotted.removesuffix("+")
        section, *rest = name.split(".")
        if section in ("model", "data"):
            if not rest:
                if isinstance(value, Mapping):
                    result = merge(result, {section: value})
                    continue
                rest = ["class_path"]
            elif rest[0] not in ("class_path", "init_args"):
                rest = ["init_args", *rest]
        elif rest[1:] and rest[0] in OF_CLASSES and rest[1] not in ("class_path", "init_args"):
            rest = [rest[0], "init_args", *rest[1:]]
        path = [section, *rest]
        nested: Any = {path[-1] + dotted[len(name) :]: value}
        for key in reversed(path[:-1]):
            nested = {key: nested}
        result = merge(result, nested)
    return result


def merge(low: Config, high: Mapping[str, Any]) -> Config:
    """`high` over `low`; a new `class_path` drops the `init_args` that stood with the former one.

    A key with `+` at its end adds to the list that stands under the key without it. Settings without a class are those
    of the class that stands there, of the last one in a list.
    """
    result = dict(low)
    replaced = "class_path" in high and _class(low.get("class_path")) not in (None, _class(high["class_path"]))
    if replaced:
        result.pop("init_args", None)
    for key, value in high.items():
        name = _name(key)
        held = name if name in result else f"{name}+"
        if key != name:
            result[held] = [*_listed(result.get(held)), *copy.deepcopy(_listed(value))]
        elif isinstance(value, Mapping) and isinstance(result.get(held), dict):
            result[held] = merge(result[held], value)
        elif isinstance(value, Mapping) and list(value) == ["init_args"] and isinstance(result.get(held), str | list):
            result[held] = _with_settings(result[held], value)
        elif isinstance(value, str) and list(_mapping(result.get(held))) == ["init_args"]:
            result[held] = {"class_path": value, **result[held]}
        else:
            result.pop(f"{name}+", None)
            result[name] = copy.deepcopy(dict(value) if isinstance(value, Mapping) else value)
    return result


def settled(config: Config) -> Config:
    """The config with its lists where nothing was there to add to."""
    return {_name(key): settled(value) if isinstance(value, dict) else value for key, value in config.items()}


def class_paths(config: Any) -> Iterator[str]:
    """Every class that a config names: by a `class_path`, or where the trainer takes a class."""
    if isinstance(config, list | tuple):
        for one in config:
            yield from class_paths(one)
    for key, value in config.items() if isinstance(config, Mapping) else ():
        if key in ("class_path", *OF_CLASSES):
            yield from (one for one in _listed(value) if isinstance(one, str))
        yield from class_paths(value)


def _with_settings(named: Any, settings: Mapping[str, Any]) -> Any:
    """A class by its name, or the last of several, with settings."""
    if isinstance(named, list):
        return [*named[:-1], _with_settings(named[-1], settings)] if named else dict(settings)
    return merge(named if isinstance(named, dict) else {"class_path": named}, settings)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _name(key: Any) -> Any:
    """The key without a `+`; one that is no text, as an epoch in a schedule, is a value and stays."""
    return key.removesuffix("+") if isinstance(key, str) else key


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None or isinstance(value, bool) else [value]


def _class(path: Any) -> str | None:
    return None if path is None else str(path).rpartition(".")[2]
