"""What is on disk and what is missing: all that is wrong with a dataset in one message, with what to get from where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from clipbench.data.cards import Card, Source
from clipbench.data.files import content, find, sha256
from clipbench.data.paths import absent, few
from clipbench.data.readers import reader
from clipbench.data.splits import OWN, PARTS, Split, differences
from clipbench.errors import DataError

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
    """

    card: Card
    root: Path
    problems: list[str] = field(default_factory=list)
    split: Split | None = None
    lacks_images: bool = False
    lacks_files: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        """`ready`, `rendered` (nothing has to be on disk), `absent` (no folder) or `incomplete`."""
        if self.card.rendered:
            return "rendered"
        if not self.problems:
            return "ready"
        return "incomplete" if self.card.folder_in(self.root).exists() else "absent"

    def message(self) -> str:
        """All problems, where the missing things come from, and how the folder must look; several lines."""
        card, number = self.card, len(self.problems)
        lines = [f"{card.id} ({card.title}): {number} problem{'s' * (number != 1)} below {self.root}"]
        lines += [f"  - {problem}" for problem in self.problems]
        wanted = sources_for(card, self.lacks_images, self.lacks_files)
        if wanted:
            lines.append("what to get:")
            lines += [f"  - {_fetch(source, self.root)}" for source in wanted]
        if card.layout and (self.lacks_images or self.lacks_files):
            lines.append(f"how it must lie below {self.root}:")
            lines += [f"  {line}" for line in card.layout.rstrip("\n").splitlines()]
        return "\n".join(lines)


def inspect(card: Card, root: Path | str, thorough: bool = True, sizes: bool = False) -> Inspection:
    """Looks at one dataset.

    Args:
        card: the dataset.
        root: the data root.
        thorough: whether to read the split and look for every path; otherwise folders and text files only.
        sizes: whether to look for empty image files as well.
    """
    found = Inspection(card, Path(root))
    if not card.rendered:
        _folders(found)
        _files(found)
    if thorough and not found.problems:
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
    """A quick look at several datasets: folders and text files with their hashes; no image folder is listed.

    Returns:
        One line per dataset, then all problems with what to get from where; and whether all can be used.
    """
    return _report([inspect(card, root, thorough=False) for card in cards])


def verify(cards: Iterable[Card], root: Path | str) -> tuple[str, bool]:
    """A full look at several datasets: hashes, class names, counts, every path, empty files.

    Returns:
        One line per dataset, then all problems with what to get from where; and whether all are right.
    """
    return _report([inspect(card, root, sizes=True) for card in cards])


def _report(found: list[Inspection]) -> tuple[str, bool]:
    """Lines and blocks of several datasets."""
    width = max((len(one.card.id) for one in found), default=0)
    lines = []
    for one in found:
        card = one.card
        images = ", ".join(f"{card.counts[part]:,} {part}" for part in PARTS if card.counts[part])
        about = f"{card.title}: {len(card.classnames)} classes, {images}"
        lines.append(f"{one.state:<10}  {card.id:<{width}}  {about}")
    blocks = [one.message() for one in found if one.problems]
    return "\n\n".join(["\n".join(lines), *blocks]), not blocks


def sources_for(card: Card, images: bool, files: Iterable[str]) -> list[Source]:
    """What to get for what is missing: archives when images are, else the text files alone; mirrors last."""
    texts = {file.name for file in card.files}
    wanted = set(files)
    return [
        source
        for source in (*card.sources, *card.mirrors)
        if (source.file in wanted) or (images and source.file not in texts) or (wanted and not _names(card, wanted))
    ]


def _names(card: Card, files: set[str]) -> bool:
    """Whether some source names one of these files (FGVC's lists come inside the archive)."""
    return any(source.file in files for source in (*card.sources, *card.mirrors))


def _fetch(source: Source, root: Path) -> str:
    """One line: what, from where, into which folder."""
    into = f" into {root / source.into}" if source.into else ""
    remarks = "; ".join([*([f"MD5 {source.md5}"] if source.md5 else []), *([source.note] if source.note else [])])
    return f"{f'{source.file} from ' if source.file else ''}{source.url}{into}{f' ({remarks})' if remarks else ''}"


def _folders(found: Inspection) -> None:
    """The dataset's folder, its image folders, and known other layouts."""
    card, root = found.card, found.root
    if not root.is_dir():
        found.problems.append(f"the data root {root} does not exist (set $CLIPBENCH_DATA or name another root)")
        found.lacks_images = True
        found.lacks_files = [file.name for file in card.files if file.needed]
        return
    for other in card.wrong_layouts:
        if (root / other.found).exists() and not (root / other.instead_of).exists():
            why = f" ({other.why})" if other.why else ""
            found.problems.append(
                f"found {root / other.found}, expected {root / other.instead_of}{why}: rename or link it"
            )
    wanted = [card.image_dir(root)]
    if card.reader == "imagenet":
        wanted = [card.image_dir(root) / part for part in ("train", "val")]
    if not card.folder_in(root).is_dir():
        wanted = [card.folder_in(root)]
    for folder in wanted:
        if not folder.is_dir():
            found.problems.append(f"the folder {folder} does not exist")
            found.lacks_images = True


def _files(found: Inspection) -> None:
    """The split file and its companions: there, and the published ones."""
    card = found.card
    if card.reader in OWN or not found.root.is_dir():
        return
    for file in card.files:
        path = find(card, file, found.root)
        if path is None:
            if file.needed:
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
            found.problems.append(
                f"{part}: {len(missing):,} of {len(items):,} images do not exist below {images}: {few(missing)}"
            )
            found.lacks_images = True
        if empty:
            found.problems.append(f"{part}: {len(empty):,} image files below {images} are empty: {few(empty)}")
            found.lacks_images = True
