"""What every data module does: the few-shot images of one dataset as loaders.

The data module owns the protocol: which classes are trained on and which form the test splits (`task`). Test images
cannot be opened during fit, and no image is opened before `setup`.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import inspect
import os
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus
from torch.utils.data import DataLoader, Dataset

from clipbench import protocols
from clipbench.argument_types import refuse_wrong_types
from clipbench.data.augmentation import ImagePolicy, Preprocessing
from clipbench.data.batches import AugmentedImages, Batch, PlainImages, UnseenImages, as_is
from clipbench.data.cards import Card
from clipbench.data.division import Division
from clipbench.data.draw import Draw
from clipbench.data.images import Pixels
from clipbench.data.preprocessing import preprocessing_of_suite
from clipbench.data.samplers import EpochBatches, PassBatches
from clipbench.data.sources import SEED, SHOTS, ImageSource
from clipbench.data.splits import Item, Split
from clipbench.data.task import Task
from clipbench.data.templates import templates_for_task
from clipbench.errors import ConfigError, DataError
from clipbench.randomness import torch_generator

LAST_SEED = 2**63 - 1  # that learned weights and records can state


class DataModule(L.LightningDataModule, abc.ABC):
    """The few-shot images of one dataset; a subclass says where they come from.

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

    Attributes:
        preprocessing: size, interpolation and resize mode of the images. None (the default): in a Trainer what the
            method's `preprocessing` says, else what the backbone of the card's suite expects.
        val_images_seen: how many val images a fit has asked for.

    Raises:
        ConfigError: an impossible value.
        UnknownName: there is no such protocol.
    """

    preprocessing: Preprocessing | None = None
    val_images_seen: int = 0  # in fits
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
    ) -> None:
        refuse_wrong_types(DataModule, locals())
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
        protocols.protocol(protocol)
        ImagePolicy(
            (crop_scale[0], crop_scale[1]), (crop_ratio[0], crop_ratio[1]), flip
        )  # refuses what is impossible before any work
        self.shots, self.protocol = shots, protocol
        self.split_seed = seed if split_seed is None else split_seed
        self.train_seed = seed if train_seed is None else train_seed
        self.batch_size, self.test_batch_size, self.num_workers = batch_size, test_batch_size, num_workers
        self._asked = (crop_scale, crop_ratio, flip)
        self._kept: Pixels | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What was said to the constructor: the trainer does not travel, and what was read is read again."""
        read = ("source", "division", "targets", "task")
        state = {name: value for name, value in self.__dict__.items() if name not in read}
        return state | {"trainer": None, "_kept": None}

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
            name: {"dataset": module.dataset, **{key: module.fingerprint()[key] for key in wanted}}
            for name, module in self.targets.items()
        }

    @property
    def augmentation(self) -> dict[str, Any]:
        """`crop_scale`, `crop_ratio` and `flip` in use: the card's where it has them, else those asked for."""
        return self.source.augmentation(*self._asked)

    # What the protocol says

    def open_targets(self) -> dict[str, DataModule]:
        """The other datasets that are tested on, by the names of their splits; opens no image."""
        return {}

    @functools.cached_property
    def targets(self) -> dict[str, DataModule]:
        """Those datasets, each as a module of its own."""
        opened = self.open_targets()
        for module in opened.values():
            module.opens_images = self.opens_images
        return opened

    @functools.cached_property
    def division(self) -> Division:
        """The dataset and its targets under the protocol."""
        return Division(self.card, self.protocol, {name: module.card for name, module in self.targets.items()})

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
        own = {name: len(_restricted(self.split.test, labels)[0]) for name, labels in self.tests.items()}
        return own | {name: len(module.split.test) for name, module in self.targets.items()}

    # The life of a run

    def prepare(self) -> None:
        """Reads split and draw and looks for every file; opens no image.

        Raises:
            DataError: everything that is missing, empty or different, in one message.
        """
        self.source.fingerprint()  # it looks at everything; what it found is kept
        for module in self.targets.values():
            module.prepare()

    def setup(self, stage: str | None = None) -> None:
        """Checks the data; for fit, decodes the images to train on.

        Raises:
            DataError: everything that is missing, different or, of the images to train on, damaged; a class to train on
                without an image.
        """
        self.prepare()
        if stage in (None, TrainerFn.FITTING):
            self._train_pixels.preload()

    def train_images(self) -> AugmentedImages:
        """The train draw of the classes trained on."""
        items, labels = _restricted(self.draw.train, self.train_labels)
        return AugmentedImages(items, labels, self._train_pixels, self._policy(), self.train_seed, self.dataset)

    def draw_images(self) -> PlainImages:
        """The train draw of the classes trained on without augmentation, in draw order."""
        items, labels = _restricted(self.draw.train, self.train_labels)
        return PlainImages(items, labels, self._train_pixels, self._policy(), "train")

    def val_images(self) -> PlainImages:
        """The val draw of the classes trained on; empty where the dataset has no val part."""
        items, labels = _restricted(self.draw.val, self.train_labels)
        if self._fitting():
            self.val_images_seen = len(items)
        pixels = self.source.pixels(items)
        pixels.preload()
        return PlainImages(items, labels, pixels, self._policy(), "val")

    def test_images(self, name: str) -> PlainImages:
        """The images of a test split; they are decoded when asked for and not kept.

        Raises:
            DataError: during fit, or when the dataset has no test image of these classes.
        """
        if self._fitting():
            raise DataError(f"test images of '{self.dataset}' cannot be opened during fit")
        if name in self.targets:
            return self._target_images(name)
        items, labels = _restricted(self.split.test, self.tests[name])
        if not items:
            raise DataError(f"'{self.dataset}' has no test images of the classes of split '{name}'")
        pixels = self.source.pixels(items, keep=False)
        return PlainImages(items, labels, pixels, self._policy(), name, self._fitting)

    def _target_images(self, name: str) -> PlainImages:
        """All test images of a target, prepared as those of this dataset are."""
        module = self.targets[name]
        items, labels = _restricted(module.split.test, range(len(module.classnames)))
        if not items:
            raise DataError(f"target '{name}' has no test images")
        return PlainImages(items, labels, module.source.pixels(items, keep=False), self._policy(), name, self._fitting)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Augmented images, reordered every epoch; a short last batch is dropped where there is a full one.

        A method that says `sees_images = False` gets the batches without them.
        """
        images = self.train_images()
        batches = EpochBatches(len(images), self.batch_size, self.train_seed, self.dataset)
        seen = getattr(getattr(self.trainer, "lightning_module", None), "sees_images", True)
        return self._loader(images if seen else UnseenImages(images), again=True, batch_sampler=batches)

    def draw_dataloader(self) -> DataLoader[Batch]:
        """Every image of the train draw once, without augmentation, in draw order: for heads on frozen features."""
        return self._loader(self.draw_images(), batch_size=self.test_batch_size)

    def passes_dataloader(self, passes: int) -> DataLoader[Batch]:
        """Every image of the train draw once a pass, augmented as in the epoch of that number, in draw order."""
        images = self.train_images()
        return self._loader(images, batch_sampler=PassBatches(len(images), self.test_batch_size, passes))

    def val_dataloader(self) -> DataLoader[Batch]:
        """The few-shot val images in order; a loader without batches where there is no val part."""
        return self._loader(self.val_images(), again=True, batch_size=self.test_batch_size)

    def test_dataloader(self) -> list[DataLoader[Batch]]:
        """One loader per test split, in the order of the task, each in the order of the split file.

        Raises:
            DataError: during fit.
        """
        names = (*self.tests, *self.targets)
        return [self._loader(self.test_images(name), batch_size=self.test_batch_size) for name in names]

    def predict_dataloader(self) -> list[DataLoader[Batch]]:
        """The loaders of `test_dataloader`."""
        return self.test_dataloader()

    def _loader(self, images: Dataset[Batch], again: bool = False, **batches: Any) -> DataLoader[Batch]:
        return DataLoader(
            images,
            **batches,
            collate_fn=as_is,
            num_workers=self.num_workers,
            persistent_workers=again and self.num_workers > 0,  # starting them costs a second per epoch
            pin_memory=torch.cuda.is_available(),
            generator=torch_generator(self.train_seed, "loader"),  # else torch draws from its global generator
        )

    def _fitting(self) -> bool:
        """Whether a trainer is fitting at this moment."""
        state = getattr(self.trainer, "state", None)
        over = (TrainerStatus.FINISHED, TrainerStatus.INTERRUPTED)
        return state is not None and state.fn == TrainerFn.FITTING and getattr(state, "status", None) not in over

    @property
    def _train_pixels(self) -> Pixels:
        """Decoded images of the train draw of the classes trained on."""
        if self._kept is None:
            items, labels = _restricted(self.draw.train, self.train_labels)
            without = [
                self.classnames[self.train_labels[new]] for new in set(range(len(self.train_labels))) - set(labels)
            ]
            if without:
                raise DataError(
                    f"'{self.dataset}' has no train image of {len(without)} of {len(self.train_labels)} classes: "
                    + ", ".join(sorted(without)[:10])
                )
            self._kept = self.source.pixels(items, shared=True)
        return self._kept

    def _policy(self) -> ImagePolicy:
        """How images are prepared for the backbone at hand."""
        method = getattr(self.trainer, "lightning_module", None)
        wanted = self.preprocessing or getattr(method, "preprocessing", None) or preprocessing_of_suite(self.suite)
        return ImagePolicy.of(wanted, **self.augmentation)


def _restricted(items: Sequence[Item], labels: Sequence[int]) -> tuple[tuple[Item, ...], list[int]]:
    """The items of some classes in their order, and their labels counted inside these classes."""
    place = {label: new for new, label in enumerate(labels)}
    kept = tuple(item for item in items if item.label in place)
    return kept, [place[item.label] for item in kept]


def _plain(value: Any) -> Any:
    """A setting as JSON has it."""
    if isinstance(value, tuple):
        return list(value)
    return os.fspath(value) if isinstance(value, os.PathLike) else value
