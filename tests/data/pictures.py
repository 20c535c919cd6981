"""Pictures of noise, for tests of what reads them."""

from __future__ import annotations

import numpy as np
from PIL import Image


def picture(seed: int, height: int = 20, width: int = 30) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)
