"""Where the images of a data module come from: card, folder, split, draw and fingerprint; no torch, no decoded image.

The data modules are built on this, and it can be used alone: what a cell will see is known before any image is opened.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipbench import resources
from clipbench.data.card import Card
from clipbench.data.cards import load_card
from clipbench.data.draw import Draw, draw
from clipbench.data.files import find
from clipbench.data.paths import few
from clipbench.data.readers.manifest import read_manifest
from clipbench.data.splits import PARTS, Item, Split
from clipbench.data.templates import GENERIC, check_template
from clipbench.errors import DataError
from clipbench.resources import datasets_dir

if TYPE_CHECKING:
    from clipbench.data.images import Pixels

SHOTS, SEED = 16, 1  # of a source that is not told otherwise


@dataclass(frozen=True, eq=False)
class ImageSource:
    """One dataset on disk and the few-shot images of one seed.

    Attributes:
        card: the dataset.
        root: the data root.
        shots: images per class.
        split_seed: seed of the draw.
        given: the split where making the card has read it already (a user's own images).
        opens: whether published images are opened to look at their headers; else they only have to be there.
    """

    card: Card
    root: Path
    shots: int = SHOTS
    split_seed: int = SEED
    given: Split | None = None
    opens: bool = True

    @functools.cached_property
    def split(self) -> Split:
        """The images of the dataset in file order.

        Raises:
            DataError: everything that is missing or differs, in one message.
        """
        return self.given or _opened_split(self.card, self.root, _stamp(self.card, self.root))

    @functools.cached_property
    def draw(self) -> Draw:
        """The few-shot images over all classes; empty for a dataset that is a test set only."""
        if not self.split.train:
            return Draw((), (), (), ())
        return draw(self.split, self.shots, self.split_seed)

    @property
    def _measured(self) -> tuple[Item, ...]:
        """The few-shot and the test images."""
        return (*self.draw.train, *self.draw.val, *self.split.test)

    @property
    def is_own(self) -> bool:
        """Whether the images are the user's own: no card of ours says which they are."""
        return self.card.path is None or not self.card.path.is_relative_to(datasets_dir())

    @functools.cached_property
    def _digests(self) -> dict[str, str]:
        """Path of every few-shot and test image to the digest of its content, for data of the user's own.

        Raises:
            DataError: names every file that is missing, empty or damaged.
        """
        from clipbench.data.contents import look_at

        paths = [item.path for item in self._measured]
        digests, bad = look_at(self.card.image_dir(self.root), paths, self.card.key, self.is_own, self.opens)
        if bad:
            raise DataError("\n  ".join([f"{len(bad)} images of '{self.card.id}' cannot be used:", *bad]))
        return digests

    @functools.cached_property
    def files_digest(self) -> str:
        """SHA-256 of all few-shot and test images; of a rendered dataset, of what decides its pixels.

        By path and content for data of the user's own; by path and size for the published datasets, whose images their
        split file names.

        Raises:
            DataError: names every file that is missing, empty or damaged.
        """
        if self.card.rendered:
            from clipbench.mini.cards import read_card
            from clipbench.mini.images import fingerprint

            return fingerprint(read_card(self.card.id))
        folder, state, digests = str(self.card.image_dir(self.root)), hashlib.sha256(), self._digests
        for item in self._measured:
            content = digests.get(item.path) or os.stat(os.path.join(folder, item.path)).st_size
            state.update(f"{item.path}\t{content}\n".encode())
        return state.hexdigest()

    @functools.cached_property
    def test_digest(self) -> str | None:
        """SHA-256 of the content of all test images, the same for every seed; None for datasets of cards of ours.

        Raises:
            DataError: names every file that is missing, empty or damaged.
        """
        digests = {} if self.card.rendered else self._digests
        lines = [f"{item.path}\t{digests[item.path]}\n" for item in self.split.test if digests]
        return hashlib.sha256("".join(lines).encode()).hexdigest() if lines else None

    @functools.cached_property
    def train_digest(self) -> str | None:
        """SHA-256 of the content of all images that may be drawn, for every seed; None for datasets of cards of ours.

        What cannot be used counts by its path: only what is drawn has to be.
        """
        if self.card.rendered or not self.is_own or not self.split.train:
            return None
        from clipbench.data.contents import look_at

        paths = [item.path for item in self.split.train]
        digests, _ = look_at(self.card.image_dir(self.root), paths, self.card.key, whole=True)
        lines = [f"{path}\t{digests.get(path, '')}\n" for path in paths]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def fingerprint(self) -> dict[str, str]:
        """What determines images and labels: `split_hash` (all parts), `draw_digest` (train, val), `files_digest`.

        Raises:
            DataError: everything that is missing, empty or different.
        """
        return {"split_hash": self.split.hash, "draw_digest": self.draw.digest, "files_digest": self.files_digest}

    def about(self) -> list[str]:
        """What was found: classes and images of each part, what is drawn, then what was passed over, a line each."""
        split, draw = self.split, self.draw
        counts = ", ".join(f"{len(split.part(part)):,} {part}" for part in PARTS)
        drawn = f"{len(draw.train):,} train and {len(draw.val):,} val images for {self.shots} shots"
        first = (
            f"{len(self.card.classnames)} classes with {counts} images; drawn are {drawn} and seed {self.split_seed}"
        )
        return [f"{self.card.key}: {line}" for line in (first, *split.notes, *self._alike())]

    def _alike(self) -> list[str]:
        """Images with the very same content in two parts, or under two labels."""
        places: dict[str, dict[tuple[str, int], str]] = {}
        parts = {"train": self.draw.train, "val": self.draw.val, "test": self.split.test}
        if not self.card.rendered and self._digests:
            for part, items in parts.items():
                for item in items:
                    places.setdefault(self._digests[item.path], {}).setdefault((part, item.label), item.path)
        alike = [list(found.values()) for found in places.values() if len(found) > 1]
        shown = few([" is ".join(paths[:3]) for paths in alike], 3)
        return [f"{len(alike)} images have the same content in two parts or classes: {shown}"] if alike else []

    def augmentation(self, crop_scale: Sequence[float], crop_ratio: Sequence[float], flip: float) -> dict[str, Any]:
        """How train images are augmented: what the card says where it says something, else what is asked for.

        Returns:
            Plain data: `crop_scale`, `crop_ratio` (two floats each), `flip`.
        """
        asked = {"crop_scale": crop_scale, "crop_ratio": crop_ratio, "flip": flip}
        used = {name: self.card.augmentation.get(name, value) for name, value in asked.items()}
        return {name: float(v) if name == "flip" else [float(x) for x in v] for name, v in used.items()}

    def pixels(self, items: Sequence[Item], shared: bool = False, keep: bool = True) -> Pixels:
        """The images of some items of one part, decoded when asked for.

        Args:
            items: the images.
            shared: let the next cell of this process find them decoded.
            keep: keep them once decoded, else decode at every access.
        """
        from clipbench.data.images import VAL_BUDGET, ArrayImages, ImageStore, kept_images

        if self.card.rendered:
            from clipbench.mini.images import load_images

            part = next(name for name in ("train", "val", "test") if not items or items[0] in self.split.part(name))
            place = {item.path: row for row, item in enumerate(self.split.part(part))}
            return ArrayImages(load_images(self.card.id, part), [place[item.path] for item in items])
        folder = self.card.image_dir(self.root)
        paths = [folder / item.path for item in items]
        return kept_images(paths) if shared else ImageStore(paths, keep, VAL_BUDGET)


def card_source(dataset: str, root: str | None = None, shots: int = SHOTS, split_seed: int = SEED) -> ImageSource:
    """The dataset of a card.

    Args:
        dataset: a key (`dtd`, `mini/dtd`) or the path of a YAML card.
        root: the data root; by default the usual one.
        shots: images per class.
        split_seed: seed of the draw.

    Raises:
        UnknownName: there is no such card.
    """
    place = Path(os.path.expanduser(root)) if root else resources.data_root()
    return ImageSource(load_card(dataset), place, shots, split_seed)


def folder_source(
    root: str,
    split: str | Sequence[float] | None = None,
    divide_seed: int = 1,
    template: str = GENERIC,
    shots: int = SHOTS,
    split_seed: int = SEED,
) -> ImageSource:
    """The dataset of a folder of images by class.

    Args:
        root: holds `train/ val/ test/`, or class folders when `split` is given.
        split: shares of train, val and test.
        divide_seed: seed of that division, which is made once and kept in a file.
        template: sentence with `{}` for the class name.
        shots: images per class.
        split_seed: seed of the draw.

    Raises:
        DataError: the folder is not as described.
    """
    from clipbench.data.own import folder_dataset

    card, found = folder_dataset(root, split, divide_seed, template)
    return ImageSource(card, Path(card.folder), shots, split_seed, found)


def manifest_source(
    path: str, root: str | None = None, template: str = GENERIC, shots: int = SHOTS, split_seed: int = SEED
) -> ImageSource:
    """The dataset of a CSV manifest `path,label,classname,split[,draws]`.

    Args:
        path: the CSV file.
        root: the folder that its paths are relative to; by default that of the file.
        template: sentence with `{}` for the class name.
        shots: images per class.
        split_seed: seed of the draw; where the column `draws` names it, the images named are the draw.

    Raises:
        DataError: the manifest is not right or images are missing.
    """
    from clipbench.data import own

    if root is None:
        card, found = own.manifest_dataset(path, template)
    else:
        file, folder = (Path(os.path.expanduser(place)) for place in (path, root))
        found, names = read_manifest(file, folder)
        about = f"Images of the manifest {file.name}."
        check_template(template, "template")
        card = own._card("manifest", folder, names, found, template, file.stem, about, None, {})
    return ImageSource(card, Path(card.folder), shots, split_seed, found)


@functools.lru_cache(maxsize=16)
def _opened_split(card: Card, root: Path, _stamp: tuple[int, ...]) -> Split:
    """Cells of one process share the split (that of ImageNet is a third of a gigabyte) while its files are the same."""
    from clipbench.data.status import open_split

    return open_split(card, root)


def _stamp(card: Card, root: Path) -> tuple[int, ...]:
    """Times of everything that a split is read from: the text files, or the class folders that are listed."""
    places = [find(card, file, root) for file in card.files]
    places += [card.image_dir(root) / part / name for part in ("", "train", "val") for name in card.class_folders]
    return tuple(_time(place) for place in places)


def _time(place: Path | None) -> int:
    try:
        return place.stat().st_mtime_ns if place else -1
    except OSError:
        return -1
