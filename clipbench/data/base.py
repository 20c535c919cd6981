"""What every data module does: the few-shot images of one dataset as loaders.

A protocol says which classes are trained on and which form the test splits (`assign`); the method says what its
backbone wants (`preprocessing`). Test images cannot be opened during fit, and no image is opened before `setup`.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus
from torch.utils.data import DataLoader

from clipbench.data.batches import Batch, EvaluationViews, TrainViews, as_is
from clipbench.data.cards import Card
from clipbench.data.draw import Draw
from clipbench.data.images import Pixels
from clipbench.data.samplers import EpochBatches
from clipbench.data.sources import SEED, SHOTS, ImageSource
from clipbench.data.splits import Item, Split
from clipbench.data.templates import templates_for
from clipbench.data.views import Preprocessing, ViewPolicy
from clipbench.errors import ConfigError, DataError
from clipbench.randomness import torch_generator


class DataModule(L.LightningDataModule, abc.ABC):
    """The few-shot images of one dataset; a subclass says where they come from.

    Args:
        shots: train images per class; a class that has fewer gives all.
        seed: of the draw, the order and the views.
        split_seed: of the draw alone; `seed` unless given.
        train_seed: of the order and the views alone; `seed` unless given.
        batch_size: train images per step.
        test_batch_size: val and test images per step.
        num_workers: processes that make views; the images do not depend on it.
        crop_scale: smallest and largest share of the area in a random crop; a card's own wins.
        crop_ratio: smallest and largest width over height of a random crop; a card's own wins.
        flip: probability of a horizontal flip; a card's own wins.

    Attributes:
        preprocessing: size, interpolation and resize mode of a view; set before the first loader.
        train_labels: the classes trained on, in the order of their new labels.
        tests: the classes of each test split, in the order of their new labels.
    """

    preprocessing: Preprocessing | None = None

    def __init__(
        self,
        shots: int = SHOTS,
        seed: int = SEED,
        split_seed: int | None = None,
        train_seed: int | None = None,
        batch_size: int = 32,
        test_batch_size: int = 100,
        num_workers: int = 0,
        crop_scale: tuple[float, float] = (0.08, 1.0),
        crop_ratio: tuple[float, float] = (0.75, 1.3333333333333333),
        flip: float = 0.5,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("shots", shots, 1),
            ("batch_size", batch_size, 1),
            ("test_batch_size", test_batch_size, 1),
            ("num_workers", num_workers, 0),
        ):
            if value < least:
                raise ConfigError(f"data.{name} must be at least {least}, not {value}")
        ViewPolicy(
            (crop_scale[0], crop_scale[1]), (crop_ratio[0], crop_ratio[1]), flip
        )  # refuses what is impossible before any work
        self.shots = shots
        self.split_seed = seed if split_seed is None else split_seed
        self.train_seed = seed if train_seed is None else train_seed
        self.batch_size, self.test_batch_size, self.num_workers = batch_size, test_batch_size, num_workers
        self._asked_views = (crop_scale, crop_ratio, flip)
        self._labels: tuple[int, ...] | None = None
        self._tests: dict[str, tuple[int, ...]] | None = None
        self._kept: tuple[tuple[int, ...], Pixels] | None = None

    @abc.abstractmethod
    def open_source(self) -> ImageSource:
        """Where the images come from; opens no image."""

    # What is known without opening an image

    @functools.cached_property
    def source(self) -> ImageSource:
        """Card, folder, split and draw."""
        return self.open_source()

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
        return templates_for(set_name, self.card)

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

    @property
    def effective_views(self) -> dict[str, Any]:
        """`crop_scale`, `crop_ratio` and `flip` in use: the card's where it has them, else those asked for."""
        return self.source.effective_views(*self._asked_views)

    # What a protocol says

    def assign(self, train_labels: Sequence[int], tests: Mapping[str, Sequence[int]]) -> None:
        """Divides the classes; a label's place in its list is its new label.

        Args:
            train_labels: the classes to train on.
            tests: name of each test split and its classes.

        Raises:
            ConfigError: a class that does not exist or stands twice in a list.
        """
        classes = len(self.classnames)
        for name, labels in {"train": train_labels, **tests}.items():
            wrong = [label for label in labels if not 0 <= label < classes]
            if wrong or len(set(labels)) != len(labels) or not labels:
                raise ConfigError(
                    f"the classes of '{name}' must be different labels of 0..{classes - 1}, not {list(labels)}"
                )
        self._labels = tuple(train_labels)
        self._tests = {name: tuple(labels) for name, labels in tests.items()}

    @property
    def train_labels(self) -> tuple[int, ...]:
        """The classes trained on; all unless a protocol said otherwise."""
        return self._labels or tuple(range(len(self.classnames)))

    @property
    def tests(self) -> dict[str, tuple[int, ...]]:
        """The classes of every test split; one split `all` unless a protocol said otherwise."""
        return self._tests or {"all": tuple(range(len(self.classnames)))}

    # The life of a run

    def prepare(self) -> None:
        """Reads split and draw and looks for every file; opens no image.

        Raises:
            DataError: everything that is missing, empty or different, in one message.
        """
        self.source.fingerprint()  # it looks at everything; what it found is kept

    def setup(self, stage: str | None = None) -> None:
        """Checks the data; for fit, decodes the images to train on.

        Raises:
            DataError: everything that is missing, different or, of the images to train on, damaged; a class to train on
                without an image.
        """
        self.prepare()
        if stage in (None, TrainerFn.FITTING):
            self._train_pixels.preload()

    def train_views(self) -> TrainViews:
        """The train draw of the classes trained on."""
        items, labels = _restricted(self.draw.train, self.train_labels)
        return TrainViews(items, labels, self._train_pixels, self._policy(), self.train_seed, self.dataset)

    def draw_views(self) -> EvaluationViews:
        """The train draw of the classes trained on as plain views, in draw order."""
        items, labels = _restricted(self.draw.train, self.train_labels)
        return EvaluationViews(items, labels, self._train_pixels, self._policy())

    def val_views(self) -> EvaluationViews:
        """The val draw of the classes trained on; empty where the dataset has no val part."""
        items, labels = _restricted(self.draw.val, self.train_labels)
        pixels = self.source.pixels(items)
        pixels.preload()
        return EvaluationViews(items, labels, pixels, self._policy())

    def test_views(self, name: str) -> EvaluationViews:
        """The images of a test split; they are decoded when asked for and not kept.

        Raises:
            DataError: during fit, or when the dataset has no test image of these classes.
        """
        if self._fitting():
            raise DataError(f"test images of '{self.dataset}' cannot be opened during fit")
        items, labels = _restricted(self.split.test, self.tests[name])
        if not items:
            raise DataError(f"'{self.dataset}' has no test images of the classes of split '{name}'")
        return EvaluationViews(items, labels, self.source.pixels(items, keep=False), self._policy(), self._fitting)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Random views, reordered every epoch; a short last batch is dropped where there is a full one."""
        views = self.train_views()
        return self._loader(views, EpochBatches(len(views), self.batch_size, self.train_seed, self.dataset), True)

    def draw_dataloader(self) -> DataLoader[Batch]:
        """Every image of the train draw once, without augmentation, in draw order: for heads on frozen features."""
        views = self.draw_views()
        return self._loader(views, EpochBatches(len(views), self.test_batch_size), False)

    def val_dataloader(self) -> DataLoader[Batch]:
        """The few-shot val images in order; a loader without batches where there is no val part."""
        views = self.val_views()
        return self._loader(views, EpochBatches(len(views), self.test_batch_size), True)

    def test_dataloader(self) -> list[DataLoader[Batch]]:
        """One loader per test split, in the order of `tests`, each in the order of the split file.

        Raises:
            DataError: during fit.
        """
        views = [self.test_views(name) for name in self.tests]
        return [self._loader(one, EpochBatches(len(one), self.test_batch_size), False) for one in views]

    def _loader(self, views: TrainViews | EvaluationViews, batches: EpochBatches, again: bool) -> DataLoader[Batch]:
        return DataLoader(
            views,
            batch_sampler=batches,
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
        if self._kept is None or self._kept[0] != self.train_labels:
            items, labels = _restricted(self.draw.train, self.train_labels)
            without = [
                self.classnames[self.train_labels[new]] for new in set(range(len(self.train_labels))) - set(labels)
            ]
            if without:
                raise DataError(
                    f"'{self.dataset}' has no train image of {len(without)} of {len(self.train_labels)} classes: "
                    + ", ".join(sorted(without)[:10])
                )
            self._kept = (self.train_labels, self.source.pixels(items, shared=True))
        return self._kept[1]

    def _policy(self) -> ViewPolicy:
        """How views are made for the backbone at hand.

        Raises:
            ConfigError: nobody has said what the backbone wants.
        """
        if self.preprocessing is None:
            raise ConfigError(f"{type(self).__name__}.preprocessing must be set before a loader is opened")
        return ViewPolicy.of(self.preprocessing, **self.effective_views)


def _restricted(items: Sequence[Item], labels: Sequence[int]) -> tuple[tuple[Item, ...], list[int]]:
    """The items of some classes in their order, and their labels counted inside these classes."""
    place = {label: new for new, label in enumerate(labels)}
    kept = tuple(item for item in items if item.label in place)
    return kept, [place[item.label] for item in kept]
