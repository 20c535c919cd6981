"""What is on disk and what is missing: all that is wrong with a dataset in one message, with what to get from where."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clipbench.data.card import Card, Source
from clipbench.data.files import content, find, sha256
from clipbench.data.paths import absent, few
from clipbench.data.readers import reader
from clipbench.data.splits import OWN, PARTS, Split, differences
from clipbench.errors import DataError

WIDTH = 15  # of the longest name of a packaged card
CLOSED = "may not be looked into by you"
LISTED = ("imagenet", "class_folders", "image_folder")  # readers that list the folders: what they return is there


@dataclass
class Inspection:
    """What was found of one dataset.

    Attributes:
        card: the dataset.
        root: the data root.
        problems: what is wrong, one sentence each; empty when all is well.
        split: the split, when it could be read.
        lacks_images: whether images are missing (and their archive is what to get).
        lacks_files: names of the text files that are missing or differ.
        missing: paths of the images that are not there, by part of the split.
        empty: paths of image files without a byte.
    """

    card: Card
    root: Path
    problems: list[str] = field(default_factory=list)
    split: Split | None = None
    lacks_images: bool = False
    lacks_files: list[str] = field(default_factory=list)
    missing: dict[str, list[str]] = field(default_factory=dict)
    empty: set[str] = field(default_factory=set)

    @property
    def state(self) -> str:
        """`ready`, `rendered` (nothing has to be on disk), `absent` (no folder) or `incomplete`."""
        if self.card.rendered:
            return "rendered"
        if not self.problems:
            return "ready"
        return "incomplete" if os.path.exists(self.card.folder_in(self.root)) else "absent"

    def line(self) -> str:
        """State, name and what the dataset holds."""
        card = self.card
        images = ", ".join(f"{card.counts[part]:,} {part}" for part in PARTS if card.counts[part])
        return f"{self.state:<10}  {card.id:<{WIDTH}}  {card.title}: {len(card.classnames)} classes, {images}"

    def summary(self) -> list[str]:
        """What is wrong in a line, and what to get from where, a line for each file; nothing where all is there."""
        lines = []
        if self.missing and self.split is not None:
            number = sum(map(len, self.missing.values()))
            total = sum(len(self.split.part(part)) for part in PARTS)
            first = next(iter(self.missing.values()))[0]
            images = self.card.image_dir(self.root)
            lines = [f"{number:,} of {total:,} images are not below {images}, for example {first[:200]}"]
        elif self.problems and self.state != "absent":
            more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
            lines = [textwrap.shorten(self.problems[0], 200, placeholder=" ...") + more]
        take, _ = sources_for(self.card, self.lacks_images, self.lacks_files)
        places: dict[str, list[Source]] = {}
        for source in take:
            places.setdefault(source.url, []).append(source)
        for url, sources in places.items():
            names = " and ".join(source.file for source in sources if source.file)
            into = " and ".join("the data root" if one.into == "." else f"{one.into}/" for one in sources if one.into)
            lines.append(f"get {f'{names} from ' if names else ''}{url}{f' into {into}' if into else ''}")
        return lines

    def message(self) -> str:
        """All problems, where the missing things come from, and how the folder must look; several lines."""
        card, number = self.card, len(self.problems)
        lines = [f"{card.id} ({card.title}): {number} problem{'s' * (number != 1)} below {self.root}"]
        lines += [f"  - {problem}" for problem in self.problems]
        for title, sources in zip(
            ("what to get", "other places"), sources_for(card, self.lacks_images, self.lacks_files), strict=True
        ):
            if sources:
                lines.append(f"{title}:")
                lines += [f"  - {_fetch(source, self.root)}" for source in sources]
        if card.layout and (self.lacks_images or self.lacks_files):
            lines.append(f"how it must lie below {self.root}:")
            lines += [f"  {line}" for line in card.layout.rstrip("\n").splitlines()]
        return "\n".join(lines)


def inspect(card: Card, root: Path | str, sizes: bool = False) -> Inspection:
    """Looks at one dataset: folders, text files with their hashes, the split, and every path.

    Args:
        card: the dataset.
        root: the data root.
        sizes: whether to look for empty image files as well.
    """
    found = Inspection(card, Path(root))
    if not card.rendered:
        _folders(found)
        _files(found)
    if not found.problems:
        _content(found, sizes)
    return found


def problems(card: Card, root: Path | str) -> list[str]:
    """Everything that is wrong with a dataset on disk, one sentence each; empty when it can be used."""
    return inspect(card, root).problems


def open_split(card: Card, root: Path | str) -> Split:
    """The split of a dataset of which every image is there.

    Raises:
        DataError: everything that is wrong, with what to download from where into which folder.
    """
    found = inspect(card, root)
    if found.problems or found.split is None:
        raise DataError(found.message())
    return found.split


def status(cards: Iterable[Card], root: Path | str) -> tuple[str, bool]:
    """What is there of several datasets, on a screen: a line each, and below it what is wrong and what to get.

    Returns:
        The lines; and whether all can be used.
    """
    found = [inspect(card, root) for card in cards]
    good = not any(one.problems for one in found)
    fault = _no_folder(Path(root))
    place = f"{root}, which {fault}" if fault else f"{root}"
    more = "" if good else " (`clipbench data verify NAME` says all that is wrong, and how the folder must look)"
    lines = [f"below {place}{more}:"]
    for one in found:
        lines += [one.line(), *(f"            {line}" for line in one.summary())]
    return "\n".join(lines), good


def verify(
    cards: Iterable[Card], root: Path | str, look: Callable[[Card, Sequence[Path]], list[str]] | None = None
) -> tuple[str, bool]:
    """A full look at several datasets: hashes, class names, counts, every path, empty files.

    Args:
        cards: the datasets.
        root: the data root.
        look: opens images and says which cannot be used; None opens none.

    Returns:
        One line per dataset, then all problems with what to get from where; and whether all are right.
    """
    found = [inspect(card, root, sizes=True) for card in cards]
    for one in found:
        if look and one.split and not one.card.rendered:
            folder, gone = one.card.image_dir(one.root), one.empty.union(*one.missing.values())
            items = {item.path: None for part in PARTS for item in one.split.part(part) if item.path not in gone}
            damaged = look(one.card, [folder / path for path in items])
            if damaged:
                lines = "".join(f"\n      {line}" for line in damaged)
                one.problems.append(f"{len(damaged):,} of {len(items):,} images cannot be used:{lines}")
                one.lacks_images = True
    blocks = [one.message() for one in found if one.problems]
    return "\n\n".join(["\n".join(one.line() for one in found), *blocks]), not blocks


def sources_for(card: Card, images: bool, files: Iterable[str]) -> tuple[list[Source], list[Source]]:
    """Where what is missing comes from: archives when images are, else the text files alone.

    Returns:
        The ones to take, one for each file; and the others.
    """
    texts, wanted, every = {file.name for file in card.files}, set(files), (*card.sources, *card.mirrors)
    inside = bool(wanted) and not any(source.file in wanted for source in every)  # FGVC's lists are in the archive
    archives = [source for source in every if source.file not in texts] if images or inside else []
    marked = [source for source in archives if source.take]
    take = marked or [source for source in archives if source in card.sources] or archives
    take += [source for file in sorted(wanted) for source in every if source.file == file][:1]
    return take, [source for source in every if source not in take and (source in archives or source.file in wanted)]


def _fetch(source: Source, root: Path) -> str:
    """One line: what, from where, into which folder."""
    into = f" into {root / source.into}" if source.into else ""
    more = "; ".join(one for one in (source.md5 and f"MD5 {source.md5}", source.note) if one)
    return f"{f'{source.file} from ' if source.file else ''}{source.url}{into}{f' ({more})' if more else ''}"


def _no_folder(path: Path) -> str:
    """Why a folder cannot be used; "" where it can."""
    try:
        with os.scandir(path):
            return "" if os.access(path, os.X_OK) else CLOSED
    except FileNotFoundError:
        return "is a link that leads nowhere" if os.path.islink(path) else "does not exist"
    except PermissionError:
        return CLOSED
    except OSError as error:
        return "is no folder" if os.path.lexists(path) else f"cannot be read: {error.strerror}"


def _closed(path: Path) -> bool:
    return os.path.isdir(path) and not os.access(path, os.R_OK | os.X_OK)


def _folders(found: Inspection) -> None:
    """The dataset's folder, its image folders, and known other layouts."""
    card, root = found.card, found.root
    if fault := _no_folder(root):
        found.problems.append(f"the data root {root} {fault} (set $CLIPBENCH_DATA or name another root)")
        if fault != CLOSED:
            found.lacks_images = True
            found.lacks_files = [file.name for file in card.files if file.needed]
        return
    for other in card.wrong_layouts:
        if os.path.exists(root / other.found) and not os.path.exists(root / other.instead_of):
            why = f" ({other.why})" if other.why else ""
            found.problems.append(
                f"found {root / other.found}, expected {root / other.instead_of}{why}: rename or link it"
            )
    wanted = [card.image_dir(root)]
    if card.reader == "imagenet":
        wanted = [card.image_dir(root) / part for part in ("train", "val")]
    if not os.path.isdir(card.folder_in(root)):
        wanted = [card.folder_in(root)]
    for folder in wanted:
        if fault := _no_folder(folder):
            found.problems.append(f"the folder {folder} {fault}")
            found.lacks_images |= fault != CLOSED


def _files(found: Inspection) -> None:
    """The split file and its companions: there, and the published ones."""
    card = found.card
    if card.reader in OWN or _no_folder(found.root):
        return
    for file in card.files:
        path = find(card, file, found.root)
        if path is None:
            if file.needed and not _closed(card.folder_in(found.root)):
                found.problems.append(f"the file {card.folder_in(found.root) / file.name} does not exist")
                found.lacks_files.append(file.name)
            continue
        try:
            digest = sha256(content(path))
        except DataError as error:
            found.problems.append(str(error))
            found.lacks_files.append(file.name)
            continue
        if file.needed and file.sha256 and digest not in file.sha256 and not card.content_sha256:
            expected = " or ".join(file.sha256)
            found.problems.append(f"{path} is not the published file: its SHA-256 is {digest}, expected {expected}")
            found.lacks_files.append(file.name)


def _content(found: Inspection, sizes: bool) -> None:
    """The split against its card, and every path."""
    card, root = found.card, found.root
    try:
        split = reader(card.reader)(card, root, None)
    except DataError as error:
        found.problems.append(str(error))
        found.lacks_images = card.reader in LISTED
        return
    found.split = split
    found.problems += differences(card, split)
    if card.rendered or (card.reader in LISTED and not sizes):
        return
    images = card.image_dir(root)
    for part in PARTS:
        items = split.part(part)
        missing, empty = absent(images, (item.path for item in items), sizes)
        if missing:
            found.missing[part] = missing
            closed = [name for name in dict.fromkeys(map(os.path.dirname, missing)) if _closed(images / name)]
            fault = f"are in folders that you may not look into ({few(closed, 3)})" if closed else "do not exist"
            found.problems.append(
                f"{part}: {len(missing):,} of {len(items):,} images {fault} below {images}: {few(missing)}"
            )
            found.lacks_images |= not closed
        if empty:
            found.empty.update(empty)
            found.problems.append(f"{part}: {len(empty):,} image files below {images} are empty: {few(empty)}")
            found.lacks_images = True
