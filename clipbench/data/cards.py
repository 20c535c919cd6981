"""Cards as files: how one is read from YAML and checked against `card.schema.json`, and found by its name."""

from __future__ import annotations

import functools
import os
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from clipbench import yaml_files
from clipbench.data.card import Card, CardFile, Source, WrongLayout
from clipbench.data.paths import few
from clipbench.errors import ConfigError, UnknownName
from clipbench.resources import datasets_dir
from clipbench.schemas import TOP, misfits

ENTRY_POINTS = "clipbench.cards"
SCHEMA_FILE = Path(__file__).with_name("card.schema.json")


def read_yaml(path: Path) -> Any:
    """The content of a card's file.

    Raises:
        ConfigError: it cannot be read, is no plain file, too large, not UTF-8 or not YAML.
    """
    if not path.is_relative_to(datasets_dir()):
        return yaml_files.read_yaml(path)
    try:
        # libyaml where there is one: the 1000 names of ImageNet are read in 20 ms instead of 200
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        return yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 (both are safe)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from error


def schema_errors(data: object) -> list[str]:
    """What is wrong with the content of a card, as one sentence each; empty when it is right."""
    found = []
    for one in misfits(data, SCHEMA_FILE):
        message = UnknownName("key", one.key, one.known) if one.key else one.message
        found.append(f"{'the card' if one.place == TOP else one.place}: {message}")
    if found or not isinstance(data, dict):
        return found
    counts, classes = data["counts"], len(data["classnames"])
    if counts["classes"] != classes:
        found.append(f"counts.classes is {counts['classes']}, but {classes} class names are given")
    base = -(-classes // 2)
    if (counts["base"], counts["novel"]) != (base, classes - base):
        found.append(
            f"counts.base and counts.novel must be {base} and {classes - base}, the halves of {classes} classes"
        )
    folders: list[str] = data.get("class_folders", [])
    if folders and len(folders) != classes:
        found.append(f"class_folders has {len(folders)} entries for {classes} classes")
    if twice := [folder for folder, times in Counter(folders).items() if times > 1]:
        found.append(f"class_folders names {len(twice)} folders twice: {few(twice)}")
    for name, bounds in (data.get("augmentation") or {}).items():
        if isinstance(bounds, list) and bounds[0] > bounds[1]:
            found.append(f"augmentation.{name}: {bounds[0]} to {bounds[1]} is no range")
    for part in ("train", "val", "test"):
        halves = [counts.get(f"{part}_{half}") for half in ("base", "novel")]
        if None not in halves and sum(halves) != counts[part]:
            found.append(f"counts.{part} is {counts[part]}, but its halves sum to {sum(halves)}")
    return found


def _sources(entries: list[Any] | None) -> tuple[Source, ...]:
    return tuple(Source(entry) if isinstance(entry, str) else Source(**entry) for entry in entries or ())


def card_from_mapping(data: object, id: str, path: Path | None = None) -> Card:
    """A card from the content of its YAML file.

    Args:
        data: the content.
        id: the name under which the card is known.
        path: the file, for messages.

    Raises:
        ConfigError: when the content does not fit the schema; every fault in one message.
    """
    faults = schema_errors(data)
    packaged = path is not None and path.is_relative_to(datasets_dir() / "mini")
    if not faults and isinstance(data, dict) and data["reader"] == "mini" and not packaged:
        faults = ["reader: mini renders the packaged datasets mini/... only"]
    if faults or not isinstance(data, dict):
        more = f"; and {len(faults) - 10} more" if len(faults) > 10 else ""
        where = f" ({path})" if path else ""
        raise ConfigError(f"card '{id}'{where} is not valid: " + "; ".join(faults[:10]) + more)
    known = data.get("split_sha256")
    return Card(
        id=id,
        path=path,
        sources=_sources(data["sources"]),
        mirrors=_sources(data.get("mirrors")),
        folder=data.get("folder") or "",
        image_root=data.get("image_root") or "",
        split_file=data.get("split_file"),
        split_sha256=(known,) if isinstance(known, str) else tuple(known or ()),
        extra_files=tuple(
            CardFile(**{**entry, "sha256": (entry["sha256"],) if "sha256" in entry else ()})
            for entry in data.get("extra_files", ())
        ),
        classnames=tuple(data["classnames"]),
        class_folders=tuple(data.get("class_folders", ())),
        content_sha256=data.get("content_sha256", {}),
        wrong_layouts=tuple(WrongLayout(**entry) for entry in data.get("wrong_layouts", ())),
        counts=dict(data["counts"]),
        augmentation=dict(data.get("augmentation") or {}),
        template=data.get("template"),
        mini=data.get("mini"),
        layout=data.get("layout", ""),
        **({"path_pattern": data["path_pattern"]} if "path_pattern" in data else {}),
        **{
            name: data[name]
            for name in ("key", "suite", "title", "published_name", "reader", "description", "licence", "citation")
        },
    )


def _plugins() -> dict[str, metadata.EntryPoint]:
    return {point.name: point for point in metadata.entry_points(group=ENTRY_POINTS)}


def list_cards() -> tuple[str, ...]:
    """Names of all cards: those of `datasets/` and those of plug-ins; sorted, the real ones before `mini/`."""
    return tuple(sorted(_packaged() | set(_plugins()), key=lambda name: (name.count("/"), name)))


def _packaged() -> frozenset[str]:
    return _names_in(datasets_dir())


@functools.cache
def _names_in(folder: Path) -> frozenset[str]:
    """Listed once a process: a plan asks for a card by name hundreds of times."""
    return frozenset(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def load_card(name: str | Path) -> Card:
    """The card of a dataset.

    Args:
        name: path below `datasets/` without `.yaml` (`dtd`, `mini/dtd`), name of a plug-in's card, or a YAML file.

    Raises:
        UnknownName: when there is no such card; names the nearest one.
        ConfigError: when the card does not fit the schema.

    Example:
        >>> load_card("dtd").published_name
        'DTD'
    """
    text = str(name)
    if not text.endswith((".yaml", ".yml")):
        if text in _packaged():  # a name, never a path
            return _load(datasets_dir() / f"{text}.yaml", text)
        if text in _plugins():
            target = _plugins()[text].load()  # a path, or a function that returns one
            target = target() if callable(target) else target
            if not isinstance(target, str | Path):
                raise ConfigError(f"the plug-in of dataset '{text}' gives {target!r}, not the path of a card")
            return _load(Path(target), text)
        raise _unknown(text)
    path = Path(os.path.expanduser(text))
    if not os.path.lexists(path):
        raise ConfigError(f"there is no card file {path}")
    return _load(path, path.stem)


def _load(path: Path, name: str) -> Card:
    try:
        path = path.resolve()
        return _loaded(path, name, path.stat().st_mtime_ns)
    except (OSError, RuntimeError) as error:  # RuntimeError: a link that leads to itself
        raise ConfigError(f"the card file {path} cannot be read: {error}") from error


@functools.lru_cache(maxsize=128)
def _loaded(path: Path, name: str, _mtime: int) -> Card:
    return card_from_mapping(read_yaml(path), name, path)


def _unknown(name: str) -> UnknownName:
    """The error for an unknown dataset; titles and names of papers (`DTD`, `Flowers102`) lead to the key."""
    error = UnknownName("dataset", name, list_cards())
    wanted = "".join(filter(str.isalnum, name.lower()))
    for known in list_cards():
        try:
            card = load_card(known)
        except ConfigError:
            continue  # a broken card of somebody else is not what was asked for
        spellings = (known, card.key, card.title, card.published_name)
        if wanted in {"".join(filter(str.isalnum, spelling.lower())) for spelling in spellings}:
            error.nearest = known
            listed = ", ".join(list_cards())
            error.args = (f"unknown dataset '{name}'; did you mean '{known}'? (known: {listed})",)
            break
    return error
