"""The data modules: a dataset with a card, a folder of images, a CSV manifest; `--data NAME` on the command line.

Every init argument is plain data and stands in each class, so that a config says all and a wrong key is refused.
"""

from __future__ import annotations

from clipbench.argument_types import refuse_wrong_types
from clipbench.data.base import DataModule
from clipbench.data.batches import Batch
from clipbench.data.sources import SEED, SHOTS, ImageSource, card_source, folder_source, manifest_source
from clipbench.data.targets import Targets
from clipbench.data.templates import GENERIC

__all__ = ["Batch", "DataModule", "FewShotDataModule", "ImageFolder", "Manifest"]


class FewShotDataModule(DataModule):
    """A dataset that has a card.

    Args:
        dataset: key of the card (`clipbench list datasets`), or the path of a YAML card.
        root: the data root; `$CLIPBENCH_DATA` or `./data` unless given.
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
        UnknownName: there is no such card, or no such protocol.
        ConfigError: targets under a protocol that has none, or none where it needs some.

    Example:
        >>> FewShotDataModule("mini/eurosat", shots=16, protocol="few_shot").task.tests[0].name
        'all'
    """

    def __init__(
        self,
        dataset: str = "mini/eurosat",
        root: str | None = None,
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
        refuse_wrong_types(FewShotDataModule, locals())
        super().__init__(
            shots, seed, split_seed, train_seed, protocol, batch_size, test_batch_size, num_workers, crop_scale,
            crop_ratio, flip, targets,
        )  # fmt: skip
        self._where = (dataset, root)

    def open_source(self) -> ImageSource:
        """The source of the card."""
        return card_source(*self._where, shots=self.shots, split_seed=self.split_seed)


class ImageFolder(DataModule):
    """A user's images in folders by class; no card is needed.

    Args:
        root: holds `train/`, `test/` and perhaps `val/` with one folder per class; with `split`, the class folders.
        split: shares of train, val and test such as `0.5,0.2,0.3`: the images are divided once, kept in a split file.
        template: sentence for the class names, `{}` for the name.
        shots: train images per class; a class that has fewer gives all.
        seed: of the draw, the order and the augmentation.
        split_seed: of the draw alone, `seed` unless given; and of the division by `split`, 1 unless given.
        train_seed: of the order and the augmentation alone; `seed` unless given.
        protocol: which classes are trained on and which are tested: base_to_novel, few_shot or cross_dataset.
        batch_size: train images per step.
        test_batch_size: val and test images per step.
        num_workers: processes that prepare images; the pixels do not depend on it.
        crop_scale: smallest and largest share of the area in a random crop.
        crop_ratio: smallest and largest width over height of a random crop.
        flip: probability of a horizontal flip.
        targets: under cross_dataset, the datasets that are tested on, by name of the split (see `Targets`).
    """

    def __init__(
        self,
        root: str,
        split: str | list[float] | None = None,
        template: str = GENERIC,
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
        refuse_wrong_types(ImageFolder, locals())
        super().__init__(
            shots, seed, split_seed, train_seed, protocol, batch_size, test_batch_size, num_workers, crop_scale,
            crop_ratio, flip, targets,
        )  # fmt: skip
        # Without a seed of its own the division stays the same for all seeds of the draw: one dataset, several draws.
        self._where = (root, split, 1 if split_seed is None else split_seed, template)

    def open_source(self) -> ImageSource:
        """The source of the folder."""
        return folder_source(*self._where, shots=self.shots, split_seed=self.split_seed)


class Manifest(DataModule):
    """A user's images listed in a CSV file `path,label,classname,split[,draws]`; no card is needed.

    Args:
        path: the CSV file.
        root: the folder that image paths are relative to; that of the file unless given.
        template: sentence for the class names, `{}` for the name.
        shots: train images per class; a class that has fewer gives all.
        seed: of the draw, the order and the augmentation.
        split_seed: of the draw alone; `seed` unless given. Where the column `draws` has it, these images are the draw.
        train_seed: of the order and the augmentation alone; `seed` unless given.
        protocol: which classes are trained on and which are tested: base_to_novel, few_shot or cross_dataset.
        batch_size: train images per step.
        test_batch_size: val and test images per step.
        num_workers: processes that prepare images; the pixels do not depend on it.
        crop_scale: smallest and largest share of the area in a random crop.
        crop_ratio: smallest and largest width over height of a random crop.
        flip: probability of a horizontal flip.
        targets: under cross_dataset, the datasets that are tested on, by name of the split (see `Targets`).
    """

    def __init__(
        self,
        path: str,
        root: str | None = None,
        template: str = GENERIC,
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
        refuse_wrong_types(Manifest, locals())
        super().__init__(
            shots, seed, split_seed, train_seed, protocol, batch_size, test_batch_size, num_workers, crop_scale,
            crop_ratio, flip, targets,
        )  # fmt: skip
        self._where = (path, root, template)

    def open_source(self) -> ImageSource:
        """The source of the manifest."""
        return manifest_source(*self._where, shots=self.shots, split_seed=self.split_seed)
