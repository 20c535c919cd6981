"""The rendered datasets of the suite `mini`: their split follows from the counts of the card; no file is read."""

from __future__ import annotations

from pathlib import Path

from clipbench.data.card import Card
from clipbench.data.splits import PARTS, Item, Split
from clipbench.errors import ConfigError


def read(card: Card, root: Path | None = None, splits_dir: Path | None = None) -> Split:
    """The split, class after class; an item's path is `<label>/<split>_<index>.png` and names no file.

    Raises:
        ConfigError: when the images of a part are not the same number for each class.
    """
    parts = {}
    for part in PARTS:
        each, rest = divmod(card.counts[part], len(card.classnames))
        if rest:
            raise ConfigError(
                f"card '{card.id}': {card.counts[part]} {part} images cannot be shared by "
                f"{len(card.classnames)} classes"
            )
        parts[part] = [
            Item(f"{label:03d}/{part}_{index:02d}.png", label, name)
            for label, name in enumerate(card.classnames)
            for index in range(each)
        ]
    return Split.of(parts)
