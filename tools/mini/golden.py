"""Golden pictures: twenty of every family, held against the renderer.

``python -m tools.mini.golden`` writes them anew. sin and cos may differ in the last bit between machines, so equality
of the digests is not asked for: what counts is that nearly all bytes of a fixed sample are equal and the others off by
one.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clipbench.mini.cards import all_cards
from clipbench.mini.render import key, render
from clipbench.mini.styles import NEUTRAL

PATH = Path(__file__).with_name("golden.npz")
PER_FAMILY = 20
# Noise does not compress: every ninth byte keeps the file small and still meets every row, column and channel.
STRIDE = 9


def golden_pictures() -> npt.NDArray[np.uint8]:
    """(220, 48, 48, 3): of every family ten pictures in the style of its card and ten in the neutral style."""
    out = []
    for card in all_cards():
        grid = card.family.grid()
        for i in range(PER_FAMILY):
            values = grid[(7 * i + 3) % len(grid)]
            style = card.style if i < PER_FAMILY // 2 else NEUTRAL
            out.append(render(card.family.name, values, style, key(card.seed, card.family.name, "golden", 0, i)))
    return np.stack(out)


def sample(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Every ninth byte of every picture, starting elsewhere in each."""
    return np.stack([one.ravel()[i % STRIDE :: STRIDE][: one.size // STRIDE] for i, one in enumerate(pictures)])


def digests(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.str_]:
    """SHA-256 of every picture."""
    return np.array([hashlib.sha256(one.tobytes()).hexdigest() for one in pictures])


def compare(pictures: npt.NDArray[np.uint8]) -> tuple[int, float, int]:
    """Hold pictures against the golden ones.

    Returns:
        How many of the 220 are equal to the last bit, the share of sampled bytes that differ, and the largest
        difference.
    """
    with np.load(PATH) as stored:
        apart = np.abs(stored["sample"].astype(int) - sample(pictures))
        same = int((stored["digests"] == digests(pictures)).sum())
    return same, float((apart > 0).mean()), int(apart.max())


def write() -> None:
    """Write the golden file from what the renderer gives now."""
    pictures = golden_pictures()
    np.savez_compressed(PATH, sample=sample(pictures), digests=digests(pictures))


if __name__ == "__main__":
    write()
