"""A card: all that is known about one dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple


class Source(NamedTuple):
    """A place to get a file from, and the folder below the data root it belongs into.

    `take` marks the ones to get the images from, where a card names several.
    """

    url: str
    file: str | None = None
    md5: str | None = None
    into: str | None = None
    note: str | None = None
    take: bool = False


class CardFile(NamedTuple):
    """A text file of a dataset; `sha256` holds every accepted hash of the uncompressed file, the original's first."""

    name: str
    sha256: tuple[str, ...] = ()
    stored_as: str | None = None
    needed: bool = True
    purpose: str | None = None


class WrongLayout(NamedTuple):
    """A folder that other code uses (`found`) where this card expects `instead_of`; both below the data root."""

    found: str
    instead_of: str
    why: str = ""


@dataclass(frozen=True, eq=False)
class Card:
    """One dataset.

    Attributes:
        id: path below `datasets/` without `.yaml`, for example `dtd` or `mini/dtd`.
        key: name in tables, template sets and overrides, for example `dtd`.
        suite: the suite it is part of: `clip11`, `imagenet_variants`, `mini`, `own` ...
        title: name of the dataset in a sentence.
        published_name: column name in the papers' tables.
        reader: name of the reader that makes the split (`clipbench.data.readers.READERS`).
        description, licence, citation: one line each.
        sources, mirrors: where the files come from; a mirror is somebody's copy.
        folder: its folder below the data root.
        image_root: folder of the images below `folder`; paths of the split are relative to it.
        split_file: name of the split file below `folder`, None where the folders are the split.
        split_sha256: accepted hashes of the uncompressed split file, the original's first.
        extra_files: other text files of the dataset.
        content_sha256: digests of the parsed parts, where a file is compared by content and not byte by byte.
        classnames: (C,) names as stored, in label order.
        class_folders: (C,) folder names in label order; where there is no split file, these folders are the split.
        path_pattern: how images are called; for trees of fake files, the split file is what counts.
        counts: `classes`, `base`, `novel` (classes), `train`, `val`, `test` (images), these by half (`test_base` ...).
        augmentation: settings of the train images that these themselves call for (`crop_scale`, `crop_ratio`, `flip`).
        template: the dataset's own template, used under every template set; None for those that the sets list.
        options: shares and seed of a user's folder that clipbench splits; never from a YAML file.
        mini: factors and style of a rendered dataset.
        layout: the folder layout, drawn as a tree.
        wrong_layouts: known other layouts, to be named when met.
        path: the YAML file; None where the card was made from a user's folder or manifest.
    """

    id: str
    key: str
    suite: str
    title: str
    published_name: str
    reader: str
    description: str
    licence: str
    citation: str
    sources: tuple[Source, ...]
    mirrors: tuple[Source, ...]
    folder: str
    image_root: str
    split_file: str | None
    split_sha256: tuple[str, ...]
    extra_files: tuple[CardFile, ...]
    classnames: tuple[str, ...]
    counts: Mapping[str, int]
    augmentation: Mapping[str, Any]
    template: str | None
    mini: Mapping[str, Any] | None
    layout: str
    class_folders: tuple[str, ...] = ()
    path_pattern: str = "{label:03d}/{number:04d}.png"
    content_sha256: Mapping[str, str] = field(default_factory=dict)
    wrong_layouts: tuple[WrongLayout, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None

    @property
    def rendered(self) -> bool:
        """Whether the images are rendered by clipbench itself (nothing has to be on disk)."""
        return self.reader == "mini"

    @property
    def files(self) -> tuple[CardFile, ...]:
        """The split file and the extra files."""
        first = (CardFile(self.split_file, self.split_sha256),) if self.split_file else ()
        by_name = {file.name: file for file in (*first, *self.extra_files)}
        if first:  # an extra entry of the same name may say what the file is called elsewhere
            by_name[first[0].name] = by_name[first[0].name]._replace(sha256=self.split_sha256)
        return tuple(by_name.values())

    def folder_in(self, root: Path | str) -> Path:
        """The dataset's folder below a data root."""
        return Path(root) / self.folder

    def image_dir(self, root: Path | str) -> Path:
        """The folder that the paths of the split are relative to."""
        return Path(root) / self.folder / self.image_root
