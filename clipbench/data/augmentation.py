"""Augmented images: random crops and flips, a pure function of (seed, dataset, path, epoch, number, policy).

The method, the number of workers and the order of calls have no part in it. Pixels are those of torchvision on a PIL
image and stay uint8: the division by 255 and the normalisation happen after collation, on the batch. Where a crop lies
is drawn here, since torchvision draws from torch's global generator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from clipbench.errors import ConfigError, UnknownName
from clipbench.randomness import numpy_generator

TRIES = 10
INTERPOLATIONS = ("bicubic", "bilinear", "lanczos", "nearest")
RESIZE_MODES = ("shortest", "squash")


class Preprocessing(Protocol):
    """What a backbone wants to see; a part of the backbone's own description."""

    @property
    def size(self) -> int:
        """Side of the square image in pixels."""

    @property
    def interpolation(self) -> str:
        """How images are resized."""

    @property
    def resize_mode(self) -> str:
        """What is done with the sides of a test image."""


@dataclass(frozen=True)
class ImagePolicy:
    """How images are prepared: random crops for training, plain ones for val and test.

    Attributes:
        crop_scale: smallest and largest area of the crop, as a share of the image's.
        crop_ratio: smallest and largest width over height of the crop.
        flip: probability of a horizontal flip.
        size: side of the square image in pixels, as the backbone expects it.
        interpolation: one of `INTERPOLATIONS`; always Pillow's, that is antialiased.
        resize_mode: plain images: "shortest" resizes the shorter side and cuts the centre, "squash" resizes both sides.

    Source: protocol of CoOp and Dassl (defaults), open_clip's `resize_mode`.
    """

    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    size: int = 224
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"

    def __post_init__(self) -> None:
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ConfigError(f"crop_scale must be two increasing shares in (0, 1], not {list(self.crop_scale)}")
        low, high = self.crop_ratio
        if not 0 < low <= high:
            raise ConfigError(f"crop_ratio must be two increasing positive numbers, not {list(self.crop_ratio)}")
        if not 0 <= self.flip <= 1:
            raise ConfigError(f"flip must be a probability, not {self.flip}")
        if self.size < 1:
            raise ConfigError(f"the size of an image must be at least one pixel, not {self.size}")
        if self.interpolation not in INTERPOLATIONS:
            raise UnknownName("interpolation", self.interpolation, INTERPOLATIONS)
        if self.resize_mode not in RESIZE_MODES:
            raise UnknownName("resize mode", self.resize_mode, RESIZE_MODES)

    @classmethod
    def of(
        cls, wanted: Preprocessing, crop_scale: Sequence[float], crop_ratio: Sequence[float], flip: float
    ) -> ImagePolicy:
        """The policy for a backbone."""
        return cls(
            crop_scale=(crop_scale[0], crop_scale[1]),
            crop_ratio=(crop_ratio[0], crop_ratio[1]),
            flip=flip,
            size=wanted.size,
            interpolation=wanted.interpolation,
            resize_mode=wanted.resize_mode,
        )

    @property
    def key(self) -> str:
        """What the random numbers of a crop depend on; not the size, so that crops are equal on all backbones."""
        return f"scale {list(map(float, self.crop_scale))} ratio {list(map(float, self.crop_ratio))} flip {self.flip}"


def augmented_image(
    pixels: np.ndarray,
    policy: ImagePolicy,
    seed: int,
    dataset: str,
    path: str,
    epoch: int,
    number: int = 0,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """A random resized crop and flip of one image.

    Args:
        pixels: uint8 (H, W, 3).
        policy: how images are prepared.
        seed: the train seed.
        dataset: the key of the dataset.
        path: the image's path as the split file has it.
        epoch: epoch number from 0.
        number: of the augmented image, from 0, for methods that want several of an image in one step.
        out: where to write the result, uint8 (3, size, size).

    Returns:
        uint8 (3, size, size).
    """
    uniform = uniforms(policy, seed, dataset, path, epoch, number)
    top, left, height, width = crop_box(pixels.shape[0], pixels.shape[1], policy, uniform)
    # cut and flipped as arrays: torchvision copies the whole photo, and every flipped image once more
    crop = Image.fromarray(pixels[top : top + height, left : left + width])
    image = np.asarray(F.resize(crop, [policy.size, policy.size], InterpolationMode(policy.interpolation)))
    return _channels_first(image[:, ::-1] if uniform[0] < policy.flip else image, out)


def plain_image(pixels: np.ndarray, policy: ImagePolicy, out: np.ndarray | None = None) -> np.ndarray:
    """An image of val or test: the shorter side resized, the centre cut out (or both sides resized, "squash").

    Args:
        pixels: uint8 (H, W, 3).
        policy: its size, interpolation and resize mode are used.
        out: where to write the result, uint8 (3, size, size).

    Returns:
        uint8 (3, size, size).
    """
    size, mode = policy.size, InterpolationMode(policy.interpolation)
    if pixels.shape[:2] == (size, size):  # all of the embedded suite: nothing to do but to copy
        return _channels_first(pixels, out)
    image = Image.fromarray(pixels)
    if policy.resize_mode == "squash":
        return _channels_first(F.resize(image, [size, size], mode), out)
    return _channels_first(F.center_crop(F.resize(image, [size], mode), [size]), out)


def uniforms(policy: ImagePolicy, seed: int, dataset: str, path: str, epoch: int, number: int) -> list[float]:
    """The random numbers of one augmented image, in [0, 1): flip, top, left, then area and ratio of each try.

    Each has its place, so the flip does not depend on how many tries the crop needed. They are made of the raw bits of
    the generator, whose stream NumPy guarantees, unlike that of its distributions.
    """
    # "view" is a former word; a name in a key is never changed, since every crop would change with it
    generator = numpy_generator(seed, "view", dataset, path, epoch, number, policy.key)
    raw = generator.bit_generator.random_raw(3 + 2 * TRIES)
    return ((raw >> np.uint64(11)) * 2.0**-53).tolist()


def crop_box(height: int, width: int, policy: ImagePolicy, uniform: list[float]) -> tuple[int, int, int, int]:
    """Where a random resized crop lies: ten tries for one that fits, else the largest centred one of a legal ratio.

    Args:
        height: of the image, pixels.
        width: of the image, pixels.
        policy: area and ratio of the crop.
        uniform: the numbers of `uniforms`.

    Returns:
        Top, left, height, width in pixels.

    Source: torchvision, `RandomResizedCrop.get_params`.
    """
    area = height * width
    (low, high), (narrow, wide) = policy.crop_scale, policy.crop_ratio
    log_narrow, log_wide = math.log(narrow), math.log(wide)
    for attempt in range(TRIES):
        target = area * (low + (high - low) * uniform[3 + 2 * attempt])
        ratio = math.exp(log_narrow + (log_wide - log_narrow) * uniform[4 + 2 * attempt])
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(uniform[1] * (height - h + 1)), int(uniform[2] * (width - w + 1)), h, w
    w, h = width, height
    if width / height < narrow:
        h = round(w / narrow)
    elif width / height > wide:
        w = round(h * wide)
    return (height - h) // 2, (width - w) // 2, h, w


def _channels_first(image: Image.Image | np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """(H, W, 3) to (3, H, W), into `out` where there is one."""
    pixels = np.asarray(image).transpose(2, 0, 1)
    if out is None:
        return pixels.copy()
    out[...] = pixels
    return out
