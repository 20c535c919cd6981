"""What a protocol makes of a dataset: labels trained on, labels of every test split, the task that a method sees."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from clipbench import protocols
from clipbench.data.card import Card
from clipbench.data.task import Task, TestSplit
from clipbench.errors import ConfigError, DataError


@dataclass(frozen=True)
class Division:
    """A dataset under a protocol.

    Attributes:
        card: of the dataset.
        protocol: name of the protocol.
        targets: the cards of other datasets that are tested on, by the names of their splits.
    """

    card: Card
    protocol: str
    targets: Mapping[str, Card] = field(default_factory=dict, hash=False)

    @functools.cached_property
    def _labels(self) -> tuple[tuple[int, ...], dict[str, tuple[int, ...]]]:
        train, tests = protocols.protocol(self.protocol).divide(range(len(self.card.classnames)))
        return tuple(train), {name: tuple(labels) for name, labels in tests.items()}

    @property
    def train(self) -> tuple[int, ...]:
        """The labels trained on; a label's place here is its label in a batch."""
        return self._labels[0]

    @property
    def tests(self) -> dict[str, tuple[int, ...]]:
        """The labels of every test split of this dataset."""
        return self._labels[1]

    def task(self) -> Task:
        """Class names of the train split and of every test split, those of targets last.

        Raises:
            ConfigError: a target that is the dataset itself or named like a split of it.
            DataError: a split of one class, among which nothing can be measured.
        """
        card = self.card
        for name, labels in {"train": self.train, **self.tests}.items():
            if len(labels) < 2:
                raise DataError(
                    f"'{card.key}' has {len(card.classnames)} classes, so split '{name}' has {len(labels)} under "
                    f"{self.protocol}: a choice among fewer than two measures nothing; few_shot takes all together"
                )
        for name, target in self.targets.items():
            if (target.id, target.folder) == (card.id, card.folder):
                raise ConfigError(f"'{name}' is trained on as '{card.id}': a target is another dataset than the source")
            if name in self.tests:
                raise ConfigError(f"a target cannot be called '{name}', as a split of the source is")
            if len(target.classnames) < 2:
                raise DataError(f"target '{name}' has one class: a choice among fewer than two measures nothing")

        def names(labels: Sequence[int]) -> tuple[str, ...]:
            return tuple(card.classnames[label] for label in labels)

        own = (TestSplit(name, names(labels), labels == self.train) for name, labels in self.tests.items())
        others = (
            TestSplit(name, target.classnames, False, target.key, target.template)
            for name, target in self.targets.items()
        )
        return Task(card.key, card.template, names(self.train), (*own, *others))
