"""YAML that people write: read strictly, checked against a schema, each mistake one sentence with its place."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import yaml

from clipbench.errors import ConfigError, UnknownName
from clipbench.schemas import TOP, misfits

LARGEST = 10_000_000  # bytes of a file that a person wrote
DEEPEST = 50  # levels
MOST = 1_000_000  # values, with each alias counted as often as it stands for something
NUMBER = re.compile(r"[-+]?[0-9.]*[0-9][0-9.]*[eE][-+]?[0-9]+")


class _Strict(yaml.SafeLoader):
    """Refuses a key that stands twice, and nesting and repetition that nobody writes."""

    depth = 0

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None and _count(node, {}) > MOST:
            raise yaml.YAMLError(f"its aliases stand for more than {MOST:,} values")
        return node

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.YAMLError(f"more than {DEEPEST} levels of nesting")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"the key in line {key.start_mark.line + 1} is a list or mapping, not a word")
            if key.tag != "tag:yaml.org,2002:merge" and key.value in seen:
                raise yaml.YAMLError(f"key '{key.value}' stands twice, again in line {key.start_mark.line + 1}")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _count(node: Any, counted: dict[Any, int]) -> int:
    """How many values a node stands for; one that holds itself counts once, and is refused later."""
    if node not in counted:
        counted[node] = 1
        if not isinstance(node, yaml.ScalarNode):
            parts = (
                node.value if isinstance(node, yaml.SequenceNode) else (part for pair in node.value for part in pair)
            )
            counted[node] += sum(_count(part, counted) for part in parts)
    return counted[node]


def parse_yaml(text: str, what: str) -> Any:
    """Plain data from YAML text.

    Args:
        text: YAML without tags of Python.
        what: begins the message, as "'coop.yaml' is not YAML".

    Raises:
        ConfigError: it is not YAML, has a key twice, or is nested without end.
    """
    try:
        data = yaml.load(text, _Strict)  # noqa: S506 (a SafeLoader)
        json.dumps(data, default=str, skipkeys=True)  # a list that holds itself is a ValueError
        return data
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that is none
        raise ConfigError(f"{what}: {' '.join(str(error).split())}") from error


def read_yaml(path: Path) -> Any:
    """Plain data from a YAML file.

    Raises:
        ConfigError: it cannot be read, is no plain file, too large, not UTF-8 or not YAML.
    """
    if not path.is_file():
        raise ConfigError(f"'{path}' is not a file")
    try:
        if path.stat().st_size > LARGEST:
            raise ConfigError(f"'{path}' has {path.stat().st_size / 1e6:.0f} MB: that is no file of settings")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"'{path}' cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"'{path}' is not YAML: it is not UTF-8 ({error.reason} at byte {error.start})") from error
    content = parse_yaml(text, f"'{path}' is not YAML")
    for place, number in _not_finite(content):
        raise ConfigError(f"'{path}': {place} is {number}, where only finite numbers can be")
    return content


def _not_finite(content: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Where numbers stand that no record could hold, also those that YAML takes for text, as 1e999."""
    if isinstance(content, dict | list):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from _not_finite(value, f"{place}.{key}".lstrip("."))
    elif isinstance(content, float | int) or (isinstance(content, str) and NUMBER.fullmatch(content)):
        try:
            finite = math.isfinite(float(content))
        except OverflowError:  # a whole number of hundreds of digits
            finite = False
        if not finite:
            yield place or "its content", str(content)[:40]


def check_schema(content: Any, schema: Path, kind: str, origin: str) -> None:
    """Refuse content that does not fit.

    Args:
        content: of the file.
        schema: file of the JSON schema.
        kind: what the file is, as "suite".
        origin: name of the file.

    Raises:
        UnknownName: a key that there is not; the nearest one is named.
        ConfigError: anything else, with the place.
    """
    for one in misfits(content, schema):
        if one.key:
            where = "" if one.place == TOP else f" at {one.place}"
            raise UnknownName(f"key of {kind} {origin}{where}", one.key, one.known)
        raise ConfigError(f"'{origin}' is not a {kind} at {one.place}: {one.message}")
