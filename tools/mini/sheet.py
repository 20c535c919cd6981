"""The contact sheet of the suite: ``python -m tools.mini.sheet FILE.png``.

For every dataset ten of its classes: above as the benchmark shows them, below in the neutral style of pretraining,
from which the benchmark's style is a shift.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from clipbench.mini.cards import MiniCard, all_cards
from clipbench.mini.render import key, render
from clipbench.mini.styles import NEUTRAL

PER_ROW, MARGIN = 10, 4


def strip(card: MiniCard) -> npt.NDArray[np.uint8]:
    """(96, 480, 3): train pictures of the card above neutral ones."""
    shown = [round(i * (len(card.classes) - 1) / (PER_ROW - 1)) for i in range(PER_ROW)]
    rows = []
    for split, style in (("train", card.style), ("neutral", NEUTRAL)):
        name = card.family.name
        pictures = [render(name, card.classes[c], style, key(card.seed, name, split, c, 0)) for c in shown]
        rows.append(np.concatenate(pictures, 1))
    return np.concatenate(rows, 0)


def sheet() -> Image.Image:
    """All eleven strips, in two columns."""
    strips = [strip(card) for card in all_cards()]
    height, width, _ = strips[0].shape
    lines = (len(strips) + 1) // 2
    out = np.full((lines * (height + MARGIN) + MARGIN, 2 * (width + MARGIN) + MARGIN, 3), 255, np.uint8)
    for i, one in enumerate(strips):
        y, x = MARGIN + (i % lines) * (height + MARGIN), MARGIN + (i // lines) * (width + MARGIN)
        out[y : y + height, x : x + width] = one
    return Image.fromarray(out)


def main() -> None:
    """Write the sheet; 64 colours keep a picture of noise small."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path)
    sheet().quantize(64, dither=Image.Dither.NONE).save(parser.parse_args().file, optimize=True)


if __name__ == "__main__":
    main()
