"""The part of a card that belongs to the renderer: which tuples are classes, in which style, how strong."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from clipbench import resources
from clipbench.errors import DataError, UnknownName
from clipbench.mini import words
from clipbench.mini.factors import Family, Values
from clipbench.mini.styles import Style
from clipbench.mini.words import FAMILIES


@dataclass(frozen=True)
class MiniCard:
    """A card as the renderer reads it.

    Attributes:
        key: card key, e.g. ``imagenet``.
        family: the family that is drawn.
        classnames: class names in label order; the first half is base.
        classes: tuple of factor values of every class, in the same order.
        per_class: images per class of ``train``, ``val`` and ``test``.
        style: effects, already scaled by the strength.
        seed: suite seed.
        digest: hash of everything that decides a pixel.
    """

    key: str
    family: Family
    classnames: tuple[str, ...]
    classes: tuple[Values, ...]
    per_class: dict[str, int]
    style: Style
    seed: int
    digest: str

    @property
    def base(self) -> int:
        """Number of base classes."""
        return (len(self.classes) + 1) // 2

    def halves(self) -> dict[str, range]:
        """Labels of the base and of the novel half."""
        return {"base": range(self.base), "novel": range(self.base, len(self.classes))}


def folder() -> Path:
    """Where the cards of the suite lie."""
    return resources.datasets_dir() / "mini"


def card_path(card_id: str) -> Path:
    """The file of a card, by its key (``imagenet``), with or without ``mini/`` before it.

    Raises:
        UnknownName: no such card.
    """
    name = card_id.removeprefix("mini/")
    path = folder() / f"{name}.yaml"
    if name not in {one.key for one in FAMILIES} or not path.is_file():
        raise UnknownName("mini dataset", card_id, [one.key for one in FAMILIES])
    return path


@cache
def read_card(card_id: str) -> MiniCard:
    """Read a card and check it against the closed list of words.

    Args:
        card_id: ``imagenet`` or ``mini/imagenet``.

    Raises:
        UnknownName: no such card.
        DataError: class names, tuples and words do not agree.
    """
    path = card_path(card_id)
    return parse_card(yaml.safe_load(path.read_text(encoding="utf-8")), path.name)


def parse_card(data: dict[str, Any], origin: str) -> MiniCard:
    """As :func:`read_card`, from a mapping; ``origin`` names it in errors."""
    block = data["mini"]
    family = words.family(block["family"])
    classes = tuple(tuple(values) for values in block["classes"])
    # Names and tuples stand side by side in the card; scoring pictures of one list with names of another fails
    # silently.
    for name, values in zip(data["classnames"], classes, strict=True):
        for factor, value in zip(family.factors, values, strict=True):
            if value not in family.factors[factor]:
                raise DataError(f"{origin}: {factor} '{value}' is not one of {', '.join(family.factors[factor])}")
        if family.phrase(values) != name:
            raise DataError(f"{origin}: class name '{name}' is not the phrase of its tuple, '{family.phrase(values)}'")
    counts = data["counts"]
    per_class = {}
    for split in ("train", "val", "test"):
        per_class[split], rest = divmod(counts[split], len(classes))
        if rest or counts["classes"] != len(classes):
            raise DataError(f"{origin}: {counts[split]} {split} images are not {len(classes)} equal classes")
    decides = {"block": block, "per_class": per_class}
    return MiniCard(
        key=data["key"],
        family=family,
        classnames=tuple(data["classnames"]),
        classes=classes,
        per_class=per_class,
        style=Style.from_card(block["style"]).scaled(float(block["strength"])),
        seed=int(block["seed"]),
        digest=hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest(),
    )


def all_cards() -> tuple[MiniCard, ...]:
    """The eleven cards, in the order of the families."""
    return tuple(read_card(one.key) for one in FAMILIES)
