"""What every data module knows before an image is opened: its settings, the dataset, the draw and the protocol.

A bench plans and names its cells by this alone. The data module owns the protocol: which classes are trained on and
which form the test splits (`task`).
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import inspect
import os
from typing import Any

import lightning as L

from clipbench.argument_types import refuse_wrong_types
from clipbench.data.augmentation import ImagePolicy
from clipbench.data.card import Card
from clipbench.data.division import Division
from clipbench.data.draw import Draw
from clipbench.data.sources import SEED, SHOTS, ImageSource
from clipbench.data.splits import Split, restricted
from clipbench.data.targets import Targets, open_target, refuse_targets
from clipbench.data.task import Task
from clipbench.data.templates import templates_for_task
from clipbench.errors import ConfigError

LAST_SEED = 2**63 - 1  # that learned weights and records can state


class KnownData(L.LightningDataModule, abc.ABC):
    """A dataset, its draw and its protocol; a subclass says where the images come from.

    Args:
        shots: train images per class; a class that has fewer gives all.
        seed: of the draw, the order and the augmentation.
        split_seed: of the draw alone; `seed` unless given.
        train_seed: of the order and the augmentation alone; `seed` unless given.
        protocol: which classes are trained on and which are tested: base_to_novel, few_shot or cross_dataset.
        batch_size: train images per step.
        test_batch_size: val and test images per step.
        num_workers: processes that prepare images; the pixels do not depend on it.
        crop_scale: smallest and largest share of the area in a random crop; a card's own wins.
        crop_ratio: smallest and largest width over height of a random crop; a card's own wins.
        flip: probability of a horizontal flip; a card's own wins.
        targets: under cross_dataset, the datasets that are tested on, by name of the split (see `Targets`).

    Raises:
        ConfigError: an impossible value; targets under a protocol that has none, or none where it needs some.
        UnknownName: there is no such protocol.
    """

    opens_images: bool = True  # a dry run asks only whether published images are there

    def __init__(
        self,
        shots: int = SHOTS,
        seed: int = SEED,
        split_seed: int | None = None,
        train_seed: int | None = None,
        protocol: str = "base_to_novel",
        batch_size: int = 32,
        test_batch_size: int = 100,
        num_workers: int = 0,
        crop_scale: tuple[float, float] = (0.08, 1.0),
        crop_ratio: tuple[float, float] = (0.75, 1.3333333333333333),
        flip: float = 0.5,
        targets: Targets | None = None,
    ) -> None:
        refuse_wrong_types(KnownData, locals())
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.hparams.update({name: _plain(value) for name, value in self.hparams.items()})
        for name, value, least in (
            ("shots", shots, 1),
            ("batch_size", batch_size, 1),
            ("test_batch_size", test_batch_size, 1),
            ("num_workers", num_workers, 0),
        ):
            if value < least:
                raise ConfigError(f"data.{name} must be at least {least}, not {value}")
        for name, given in (("seed", seed), ("split_seed", split_seed), ("train_seed", train_seed)):
            if given is not None and abs(given) > LAST_SEED:
                raise ConfigError(f"data.{name} must be at most {LAST_SEED}, not {given}")
        refuse_targets(protocol, targets)
        ImagePolicy(
            (crop_scale[0], crop_scale[1]), (crop_ratio[0], crop_ratio[1]), flip
        )  # refuses what is impossible before any work
        self.shots, self.protocol = shots, protocol
        self.split_seed = seed if split_seed is None else split_seed
        self.train_seed = seed if train_seed is None else train_seed
        self.batch_size, self.test_batch_size, self.num_workers = batch_size, test_batch_size, num_workers
        self._targets = dict(targets or {})
        self._asked = (crop_scale, crop_ratio, flip)

    def __getstate__(self) -> dict[str, Any]:
        """What was said to the constructor: the trainer does not travel, and what was read is read again."""
        members = (item for kind in type(self).__mro__ for item in vars(kind).items())
        read = {name for name, member in members if isinstance(member, functools.cached_property)}
        return {name: value for name, value in self.__dict__.items() if name not in read} | {"trainer": None}

    @abc.abstractmethod
    def open_source(self) -> ImageSource:
        """Where the images come from; opens no image."""

    # What is known without opening an image

    @functools.cached_property
    def source(self) -> ImageSource:
        """Card, folder, split and draw."""
        return dataclasses.replace(self.open_source(), opens=self.opens_images)

    @property
    def card(self) -> Card:
        """The description of the dataset."""
        return self.source.card

    @property
    def dataset(self) -> str:
        """The key of the dataset."""
        return self.card.key

    @property
    def suite(self) -> str:
        """The suite that the card is part of."""
        return self.card.suite

    @property
    def classnames(self) -> tuple[str, ...]:
        """(C,) names of all classes, in label order."""
        return self.card.classnames

    def templates(self, set_name: str) -> tuple[str, ...]:
        """The templates of the dataset in a set.

        Raises:
            UnknownName: there is no set of that name.
        """
        return templates_for_task(set_name, self.task)

    @property
    def section(self) -> dict[str, Any] | None:
        """Class and settings as a config has them, without what moves no number; None for a class of one's own.

        Where the images of a card lie is left to those who read this; of one's own images it is part of what they are.
        """
        name = type(self).__name__
        if not type(self).__module__.startswith("clipbench."):
            return None
        without = {"num_workers", "test_batch_size", *(("root",) if "dataset" in self.hparams else ())}
        without |= set() if self.hparams.get("targets") else {"targets"}
        known = inspect.signature(type(self)).parameters.keys() - without
        return {"class_path": name, "init_args": {key: self.hparams[key] for key in sorted(known & set(self.hparams))}}

    @property
    def split(self) -> Split:
        """All images over all classes, in file order.

        Raises:
            DataError: everything that is missing or differs.
        """
        return self.source.split

    @property
    def draw(self) -> Draw:
        """The few-shot images over all classes, in draw order."""
        return self.source.draw

    def fingerprint(self) -> dict[str, str]:
        """`split_hash`, `draw_digest` and `files_digest` (see `ImageSource.fingerprint`)."""
        return self.source.fingerprint()

    def target_fingerprints(self) -> dict[str, dict[str, str]]:
        """By target: what determines its test images and their labels, and the key of its card."""
        wanted = ("split_hash", "files_digest")
        return {
            name: {"dataset": source.card.key, **{key: source.fingerprint()[key] for key in wanted}}
            for name, source in self.targets.items()
        }

    @property
    def augmentation(self) -> dict[str, Any]:
        """`crop_scale`, `crop_ratio` and `flip` in use: the card's where it has them, else those asked for."""
        return self.source.augmentation(*self._asked)

    # What the protocol says

    @functools.cached_property
    def targets(self) -> dict[str, ImageSource]:
        """The other datasets that are tested on, by the names of their splits."""
        return {name: self.open_target(name) for name in self._targets}

    def open_target(self, name: str) -> ImageSource:
        """One of them, without opening an image; a card lies below the same root unless it names its own."""
        root = self.hparams.get("root") if "dataset" in self.hparams else None
        opened = open_target(name, self._targets[name], root, self.shots)
        return dataclasses.replace(opened, opens=self.opens_images)

    @functools.cached_property
    def division(self) -> Division:
        """The dataset and its targets under the protocol."""
        return Division(self.card, self.protocol, {name: source.card for name, source in self.targets.items()})

    @property
    def train_labels(self) -> tuple[int, ...]:
        """The classes trained on; a label's place here is its label in a batch."""
        return self.division.train

    @property
    def tests(self) -> dict[str, tuple[int, ...]]:
        """The classes of every test split of this dataset, in the order of the test loaders."""
        return self.division.tests

    @functools.cached_property
    def task(self) -> Task:
        """Class names of the train split and of every test split; known from the cards, without split file or image.

        Raises:
            ConfigError: a target that is the dataset itself.
            DataError: a split of one class, among which nothing can be measured.
        """
        return self.division.task()

    def count_tests(self) -> dict[str, int]:
        """How many test images each test split has."""
        own = {name: len(restricted(self.split.test, labels)[0]) for name, labels in self.tests.items()}
        return own | {name: len(source.split.test) for name, source in self.targets.items()}

    def prepare(self) -> None:
        """Reads split and draw and looks for every file; opens no image.

        Raises:
            DataError: everything that is missing, empty or different, in one message.
        """
        self.source.fingerprint()  # it looks at everything; what it found is kept
        for source in self.targets.values():
            source.fingerprint()


def _plain(value: Any) -> Any:
    """A setting as JSON has it."""
    if isinstance(value, tuple):
        return list(value)
    return os.fspath(value) if isinstance(value, os.PathLike) else value
