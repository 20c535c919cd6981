"""FGVCAircraft: the archive's own text files; a label is the line number in `variants.txt`, an image is `<id>.jpg`."""

from __future__ import annotations

from pathlib import Path

from clipbench.data.card import Card
from clipbench.data.files import named, open_file, sha256
from clipbench.data.splits import PARTS, Item, Split, digest, per_class
from clipbench.errors import DataError

VARIANTS = "variants.txt"
LISTS = {part: f"images_variant_{part}.txt" for part in PARTS}


def read(card: Card, root: Path, splits_dir: Path | None = None) -> Split:
    """The split in file order; a list line is `<7-digit id> <variant name with blanks>`.

    The card's hashes are of rebuilt files whose line endings may differ from the archive's, so a file with another hash
    is compared by its parsed content: for train and val, the order inside each class and of the classes' first
    appearance, which is all that the draw depends on; for test, the set of images.

    Raises:
        DataError: when a file is missing, a line cannot be parsed, or the content is not the published one.
    """
    path, data = open_file(card, named(card, VARIANTS), root, splits_dir)
    names = [line.strip() for line in _lines(data, path)]
    labels = {name: label for label, name in enumerate(names)}
    parts = {}
    for part in PARTS:
        file = named(card, LISTS[part])
        path, data = open_file(card, file, root, splits_dir)
        items = _items(data, path, labels)
        if sha256(data) not in file.sha256 and part in card.content_sha256:
            found = content_digest(items, ordered=part != "test")
            if found != card.content_sha256[part]:
                raise DataError(
                    f"{path} does not hold the published {part} list: the digest of its content is {found}, "
                    f"expected {card.content_sha256[part]}"
                )
        parts[part] = items
    return Split.of(parts)


def content_digest(items: tuple[Item, ...], ordered: bool) -> str:
    """Digest of a list, class after class by first appearance; by path when the order does not matter."""
    if not ordered:
        return digest(sorted(items))
    return digest(items[position] for positions in per_class(items).values() for position in positions)


def _lines(data: bytes, path: Path) -> list[str]:
    try:
        return [line for line in data.decode("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a text file: {error}") from error


def _items(data: bytes, path: Path, labels: dict[str, int]) -> tuple[Item, ...]:
    items = []
    for line in _lines(data, path):
        image, _, name = line.strip().partition(" ")
        if not image.isalnum():
            raise DataError(f"{path}: '{image}' is no number of an image")
        if name not in labels:
            raise DataError(f"{path}: the variant '{name}' of image {image} does not stand in {VARIANTS}")
        items.append(Item(f"{image}.jpg", labels[name], name))
    return tuple(items)
