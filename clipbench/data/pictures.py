"""Images that a user hands over (paths, PIL images, pixels) as the pixels that a backbone takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clipbench.backbone.spec import Preprocessing
from clipbench.data.augmentation import ImagePolicy, plain_image
from clipbench.data.decoding import as_rgb, check_images, decode
from clipbench.errors import ConfigError, DataError


def as_pixels(images: Any, preprocessing: Preprocessing) -> Tensor:
    """Pixels of images, resized and cropped as in a test.

    Args:
        images: paths, PIL images, or a mixture of them; or pixels, uint8 (B, 3, size, size), which stay as they are.
        preprocessing: of the backbone.

    Returns:
        uint8 (B, 3, size, size).

    Raises:
        DataError: files that are missing or damaged, all in one message.
        ConfigError: something else, or pixels of another size or type.
    """
    size = preprocessing.size
    if isinstance(images, Tensor | np.ndarray):
        pixels = torch.as_tensor(images)
        pixels = pixels[None] if pixels.ndim == 3 else pixels
        if pixels.dtype != torch.uint8 or pixels.shape[1:] != (3, size, size):
            shape = "x".join(map(str, pixels.shape))
            raise ConfigError(f"pixels are uint8 of Bx3x{size}x{size} for this backbone, not {pixels.dtype} of {shape}")
        return pixels
    given: Sequence[Any] = [images] if isinstance(images, str | Path | Image.Image) else list(images)
    files = [Path(image) for image in given if isinstance(image, str | Path)]
    if bad := [f"there is no image '{file}'" for file in files if not file.is_file()] or check_images(files):
        raise DataError("\n".join(bad))
    policy = ImagePolicy(size=size, interpolation=preprocessing.interpolation)
    return torch.stack([torch.as_tensor(plain_image(_decoded(image), policy)) for image in given])


def _decoded(image: Any) -> Any:
    if isinstance(image, str | Path):
        return decode(Path(image))
    if not isinstance(image, Image.Image):
        raise ConfigError(f"an image is a path or a PIL image, not {type(image).__name__}")
    return as_rgb(image)
