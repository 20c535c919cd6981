"""The renderer: one picture from a family, a tuple, a style and a key. Pretraining and benchmark both come through
here.

Every picture has three streams of random numbers, one for content and pose, one for the background, one for style and
noise, keyed by (suite seed, family, split, class, image, purpose). A class that needs more numbers therefore never
changes its background.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from clipbench.mini import styles
from clipbench.mini.content import DRAW, Brush
from clipbench.mini.content import brush as brushes
from clipbench.mini.factors import Values
from clipbench.mini.shapes import SIZE, Array
from clipbench.mini.styles import Style
from clipbench.mini.words import FAMILIES

# Part of every cache key: raise it when any pixel may change.
RENDERER_VERSION = 1

SPLITS = {
    name: number
    for number, name in enumerate(
        (
            "train",
            "val",
            "test",
            "neutral",
            "blank_train",
            "blank_test",
            "pretrain",
            "golden",
            "random_train",
            "random_test",
        )
    )
}
_CONTENT, _BACKGROUND, _STYLE = 0, 1, 2
_FAMILY_INDEX = {one.name: i for i, one in enumerate(FAMILIES)}

Key = tuple[int, ...]


def key(seed: int, family: str, split: str, label: int, image: int) -> Key:
    """The key of a picture, without the purpose."""
    return (seed, _FAMILY_INDEX[family], SPLITS[split], label, image)


def raw(picture: Key, purpose: int, count: int) -> npt.NDArray[np.uint64]:
    """(count,) 64-bit words of PCG64; bit generators are stable across numpy versions, distributions need not be."""
    return np.random.PCG64(np.random.SeedSequence((*picture, purpose))).random_raw(count)


def uniforms(words: npt.NDArray[np.uint64]) -> list[float]:
    """Numbers in [0, 1) from 64-bit words."""
    return ((words >> np.uint64(11)).astype(np.float64) * 2.0**-53).tolist()


def _normals(words: npt.NDArray[np.uint64]) -> Array:
    """Nearly normal numbers: four 16-bit uniforms of a word, summed; needs no logarithm, so it is exact on every
    machine."""
    parts = words.view(np.uint16).reshape(-1, 4).sum(1, dtype=np.int32)
    return ((parts - 131070).astype(np.float32) * np.float32(np.sqrt(3.0) / 65536)).reshape(3, SIZE, SIZE)


def render(family: str, values: Values | None, style: Style, picture: Key) -> npt.NDArray[np.uint8]:
    """Draw one picture.

    Args:
        family: family name, e.g. ``things``.
        values: the tuple to show; ``None`` for a blank (background, clutter and style without content).
        style: ``styles.NEUTRAL`` for pretraining, or the scaled style of a card.
        picture: see :func:`key`.

    Returns:
        (48, 48, 3) uint8 RGB.
    """
    canvas = styles.background(uniforms(raw(picture, _BACKGROUND, styles.UNIFORMS)), style)
    if values is not None:
        numbers = uniforms(raw(picture, _CONTENT, brushes.UNIFORMS))
        DRAW[family](Brush(canvas, numbers, style.jitter), values)
    words = raw(picture, _STYLE, styles.UNIFORMS + 3 * SIZE * SIZE)
    noise = _normals(words[styles.UNIFORMS :])
    return styles.apply(canvas, style, uniforms(words[: styles.UNIFORMS]), noise)
