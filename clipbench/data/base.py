"""What every data module does: the few-shot images of one dataset as loaders.

What is known before an image is opened stands in `known.py`. Test images cannot be opened during fit, and no image is
opened before `setup`.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus
from torch.utils.data import DataLoader, Dataset

from clipbench.data.augmentation import ImagePolicy, Preprocessing
from clipbench.data.batches import AugmentedImages, Batch, PlainImages, UnseenImages, as_is
from clipbench.data.images import Pixels
from clipbench.data.known import KnownData
from clipbench.data.preprocessing import preprocessing_of_suite
from clipbench.data.samplers import EpochBatches, PassBatches
from clipbench.data.splits import restricted
from clipbench.errors import DataError
from clipbench.randomness import torch_generator


class DataModule(KnownData):
    """The few-shot images of one dataset; a subclass says where they come from, with the arguments of `KnownData`.

    Attributes:
        preprocessing: size, interpolation and resize mode of the images. None (the default): in a Trainer what the
            method's `preprocessing` says, else what the backbone of the card's suite expects.
        val_images_seen: how many val images a fit has asked for.
    """

    preprocessing: Preprocessing | None = None
    val_images_seen: int = 0  # in fits

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
        items, labels = restricted(self.draw.train, self.train_labels)
        return AugmentedImages(items, labels, self._train_pixels, self._policy(), self.train_seed, self.dataset)

    def draw_images(self) -> PlainImages:
        """The train draw of the classes trained on without augmentation, in draw order."""
        items, labels = restricted(self.draw.train, self.train_labels)
        return PlainImages(items, labels, self._train_pixels, self._policy(), "train")

    def val_images(self) -> PlainImages:
        """The val draw of the classes trained on; empty where the dataset has no val part."""
        items, labels = restricted(self.draw.val, self.train_labels)
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
        items, labels = restricted(self.split.test, self.tests[name])
        if not items:
            raise DataError(f"'{self.dataset}' has no test images of the classes of split '{name}'")
        pixels = self.source.pixels(items, keep=False)
        return PlainImages(items, labels, pixels, self._policy(), name, self._fitting)

    def _target_images(self, name: str) -> PlainImages:
        """All test images of a target, prepared as those of this dataset are."""
        source = self.targets[name]
        items, labels = restricted(source.split.test, range(len(source.card.classnames)))
        if not items:
            raise DataError(f"target '{name}' has no test images")
        return PlainImages(items, labels, source.pixels(items, keep=False), self._policy(), name, self._fitting)

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

    @functools.cached_property
    def _train_pixels(self) -> Pixels:
        """Decoded images of the train draw of the classes trained on."""
        items, labels = restricted(self.draw.train, self.train_labels)
        without = [self.classnames[self.train_labels[new]] for new in set(range(len(self.train_labels))) - set(labels)]
        if without:
            raise DataError(
                f"'{self.dataset}' has no train image of {len(without)} of {len(self.train_labels)} classes: "
                + ", ".join(sorted(without)[:10])
            )
        return self.source.pixels(items, shared=True)

    def _policy(self) -> ImagePolicy:
        """How images are prepared for the backbone at hand."""
        method = getattr(self.trainer, "lightning_module", None)
        wanted = self.preprocessing or getattr(method, "preprocessing", None) or preprocessing_of_suite(self.suite)
        return ImagePolicy.of(wanted, **self.augmentation)
