"""Split files of the CoOp authors: JSON with train, val and test, each a list of `[path, label, class name]`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clipbench.data.cards import Card
from clipbench.data.files import check_hash, named, open_file
from clipbench.data.splits import PARTS, Item, Split
from clipbench.errors import DataError


def read(card: Card, root: Path, splits_dir: Path | None = None) -> Split:
    """The split in file order.

    Raises:
        DataError: when the file is missing, is not the published one, or cannot be parsed.
    """
    file = named(card, card.split_file or "")
    path, data = open_file(card, file, root, splits_dir)
    check_hash(file, path, data)
    return parse(data, path)


def parse(data: bytes, path: Path) -> Split:
    """The split that the bytes of a JSON file describe.

    Args:
        data: content of the file.
        path: for messages.

    Raises:
        DataError: when it is not JSON or not of this form.
    """
    try:
        content: Any = json.loads(data)
        lists = {
            part: [Item(str(image), int(label), str(name)) for image, label, name in content[part]] for part in PARTS
        }
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{path} is not a split file (an object with train, val and test, each a list of "
            f"[path, label, class name]): {error!r}"
        ) from error
    return Split.of(lists)


def dump(split: Split) -> bytes:
    """The bytes of a split file, as the CoOp authors write them: indent 4, no line feed at the end."""
    lists = {part: [list(item) for item in split.part(part)] for part in PARTS}
    return json.dumps(lists, indent=4, separators=(",", ": ")).encode()
