"""A split: the images of a dataset as train, val and test, in the order of its file; the halves of its classes."""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from clipbench.data.paths import few

if TYPE_CHECKING:
    from clipbench.data.card import Card

PARTS = ("train", "val", "test")
Marks = Mapping[int, tuple[tuple[int, ...], tuple[int, ...]]]
OWN = ("manifest", "image_folder")  # readers of a user's data, where a class may lack val or test images


class Item(NamedTuple):
    """One image: path relative to the card's image folder, label, and class name as stored."""

    path: str
    label: int
    classname: str


@dataclass(frozen=True)
class Split:
    """The three parts of a dataset, in file order.

    Attributes:
        train, val, test: the images; empty where a part does not exist.
        marks: for the seeds whose few-shot images are named by the data themselves (a manifest's column `draws`):
            the positions of these images in `train` and in `val`.
        notes: what was passed over when a user's folder was read, one sentence each.
    """

    train: tuple[Item, ...]
    val: tuple[Item, ...]
    test: tuple[Item, ...]
    marks: Marks = field(default_factory=dict)
    notes: tuple[str, ...] = field(default=(), compare=False)

    def part(self, name: str) -> tuple[Item, ...]:
        """The part of that name: `train`, `val` or `test`."""
        if name not in PARTS:
            raise KeyError(name)
        part: tuple[Item, ...] = getattr(self, name)
        return part

    @classmethod
    def of(cls, parts: Mapping[str, Iterable[Item]], marks: Marks | None = None, notes: Sequence[str] = ()) -> Split:
        """A split from its parts by name; a part that is not named is empty."""
        train, val, test = (tuple(parts.get(part, ())) for part in PARTS)
        return cls(train, val, test, marks or {}, tuple(notes))

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 of everything in it: parts, paths, labels, class names, order."""
        state = hashlib.sha256()
        for part in PARTS:
            for item in self.part(part):
                state.update(f"{part}\t{item.path}\t{item.label}\t{item.classname}\n".encode())
        for seed in sorted(self.marks):
            state.update(f"marks\t{seed}\t{self.marks[seed]}\n".encode())
        return state.hexdigest()


def digest(items: Iterable[Item]) -> str:
    """SHA-256 of the lines `path<TAB>label`, joined by line feeds, in the given order.

    Source:
        `reference/protocol.md` section 3, last paragraph; the published digests of draws are of this form.
    """
    return hashlib.sha256("\n".join(f"{item.path}\t{item.label}" for item in items).encode()).hexdigest()


def halves(classes: int) -> tuple[range, range]:
    """Labels of the base and of the novel classes: the first ceil(C/2) and the rest.

    Example:
        >>> halves(5)
        (range(0, 3), range(3, 5))
    """
    base = -(-classes // 2)
    return range(base), range(base, classes)


def per_class(items: Sequence[Item]) -> dict[int, list[int]]:
    """Positions of the items of each label: labels by first appearance, positions in list order."""
    groups: dict[int, list[int]] = {}
    for position, item in enumerate(items):
        groups.setdefault(item.label, []).append(position)
    return groups


def differences(card: Card, split: Split) -> list[str]:
    """Where a split differs from its card: class names, labels, counts, doubles; one sentence each."""
    found = []
    for part in PARTS:
        items = split.part(part)
        if len(items) != card.counts[part]:
            found.append(f"{part}: {len(items):,} images, expected {card.counts[part]:,}")
        base = card.counts["base"]
        for half, wanted in (("base", range(base)), ("novel", range(base, card.counts["classes"]))):
            expected = card.counts.get(f"{part}_{half}")
            if expected is not None:
                number = sum(item.label in wanted for item in items)
                if number != expected and len(items) == card.counts[part]:
                    found.append(f"{part}, {half} classes: {number:,} images, expected {expected:,}")
        labels = {item.label for item in items}
        outside = sorted(label for label in labels if not 0 <= label < len(card.classnames))
        if outside:
            found.append(f"{part}: labels {few(outside)} outside 0..{len(card.classnames) - 1}")
        without = sorted(set(range(len(card.classnames))) - labels)
        if items and without and (part == "train" or card.reader not in OWN):
            names = [card.classnames[label] for label in without]
            found.append(f"{part}: {len(without)} of {len(card.classnames)} classes without an image: {few(names)}")
        twice = sorted(path for path, times in Counter(item.path for item in items).items() if times > 1)
        if twice:
            found.append(f"{part}: {len(twice)} paths stand twice: {few(twice)}")
    found += _other_names(card, split)
    both = {item.path for item in split.train} & {item.path for item in split.val}
    if both:
        found.append(f"{len(both)} val images are also train images: {few(sorted(both))}")
    leaked = {item.path for item in (*split.train, *split.val)} & {item.path for item in split.test}
    if leaked:
        found.append(f"{len(leaked)} test images are also train or val images: {few(sorted(leaked))}")
    return found


def _other_names(card: Card, split: Split) -> list[str]:
    """Class names of the split that are not the card's."""
    other = {}
    for part in PARTS:
        for item in split.part(part):
            if 0 <= item.label < len(card.classnames) and card.classnames[item.label] != item.classname:
                other[item.label, item.classname] = card.classnames[item.label]
    if not other:
        return []
    shown = [f"label {label} is '{name}', expected '{expected}'" for (label, name), expected in sorted(other.items())]
    return [f"{len(other)} class names differ: {few(shown)}"]


def restricted(items: Sequence[Item], labels: Sequence[int]) -> tuple[tuple[Item, ...], list[int]]:
    """The items of some classes in their order, and their labels counted inside these classes."""
    place = {label: new for new, label in enumerate(labels)}
    kept = tuple(item for item in items if item.label in place)
    return kept, [place[item.label] for item in kept]
