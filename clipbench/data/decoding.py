"""Image files to pixels: which formats are read, what is refused, and why a file cannot be used.

As in the reference implementation an image is opened and converted to RGB first, before anything is resized, and an
EXIF orientation is ignored: a photo stored sideways stays sideways; of an animation the first picture is taken. Only
the formats named here are tried, whatever a file is called: others would start programs (PostScript) or mean nothing.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
import warnings
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import Any, BinaryIO, TypeVar

import numpy as np
from PIL import Image

from clipbench.errors import DataError
from clipbench.regular_files import open_regular, reason

# AVIF came with Pillow 11.3
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", *(["AVIF"] if find_spec("PIL.AvifImagePlugin") else []))
ELONGATION = 200  # long side over short side: 1 x 100,000 pixels, resized to a short side of 224, would take 15 GB
END = 4096  # bytes at the end of a file that are looked at; some programs write a little behind the image
# Its cause is refused in `_opened`. Filters cannot be changed for a while in one thread alone: so once, for all.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
T = TypeVar("T")


class DamagedImages(DataError):
    """Images that cannot be decoded; the message names each path and the reason.

    A loader's worker process hands an error over as the text of its traceback; only the sentence at its end is for the
    user.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition(f"{type(self).__qualname__}: ")[2].rstrip("\n"))


class _Unfit(ValueError):
    """An image that Pillow would open and that is not what a photo is."""


def decode(path: str | os.PathLike[str]) -> np.ndarray:
    """Decodes one image file as the reference does: RGB first, EXIF orientation ignored.

    Args:
        path: a file of one of `FORMATS`.

    Returns:
        uint8 (H, W, 3), RGB, read-only.

    Raises:
        DamagedImages: the file is missing, empty, truncated, no image or no file; has more than 8 bits a channel; is
            so large that Pillow takes it for a decompression bomb (its warning, at 89 million pixels, is an error
            here); or is longer than 200 times its width.

    Source: Dassl, `read_image`: `Image.open(path).convert("RGB")`.
    """

    def pixels() -> np.ndarray:
        with open_regular(path) as file, _opened(file) as image:
            return np.asarray(image.convert("RGB"))

    decoded = _attempt(path, pixels)
    decoded.flags.writeable = False
    return decoded


def check_content(path: str | os.PathLike[str], data: bytes) -> str | None:
    """Why the content of a file cannot be used as an image, judged by its header; None where it seems right.

    A file that seems cut off, or whose checksums are wrong, is decoded whole before it is called so.
    """

    def look() -> None:
        with _opened(io.BytesIO(data)) as image:
            if _complete(image.format or "", data[:12], data, len(data)) and _sums_up(image):
                return
        with _opened(io.BytesIO(data)) as image:
            image.convert("RGB")

    return _fault(path, look)


def check_header(path: str | os.PathLike[str]) -> str | None:
    """Why a file cannot be used as an image, judged by its header and its end; None where it seems right.

    A file that seems cut off is decoded whole before it is called so.
    """

    def look() -> None:
        with open_regular(path) as file, _opened(file) as image:
            place = file.tell()
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - END))
            end = file.read()
            file.seek(0)
            start = file.read(12)
            file.seek(place)
            if not _complete(image.format or "", start, end, size):
                image.convert("RGB")

    return _fault(path, look)


def _fault(path: str | os.PathLike[str], look: Callable[[], object]) -> str | None:
    """Why looking at a file fails; None where it does not."""
    try:
        _attempt(path, look)
    except DamagedImages as error:
        return str(error)
    return None


def check_images(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Decodes every file and says which cannot be used.

    Returns:
        One line "path: reason" for each bad file, in the order given; empty when all are good.
    """
    bad = []
    for path in paths:
        try:
            decode(path)
        except DamagedImages as error:
            bad.append(str(error))
    return bad


def as_rgb(image: Image.Image) -> np.ndarray:
    """Pixels of an image that is open already, under the same conditions as those of a file.

    Raises:
        DataError: it has more than 8 bits a channel, or a shape that no photo has.
    """
    try:
        _check(image)
    except _Unfit as error:
        raise DataError(f"an image of {image.width} x {image.height} pixels: {error}") from error
    return np.asarray(image.convert("RGB"))


def _attempt(path: str | os.PathLike[str], work: Callable[[], T]) -> T:
    """Does something with an image; whatever its decoder raises becomes a sentence with its path."""
    try:
        return work()
    except Exception as error:  # a decoder that is fed damaged bytes raises whatever it likes
        raise DamagedImages(f"{os.fspath(path)}: {_why(path, error)}") from error


def _opened(file: BinaryIO) -> Image.Image:
    """An image with its header read and looked at."""
    image = Image.open(file, formats=FORMATS)
    if Image.MAX_IMAGE_PIXELS and image.width * image.height > Image.MAX_IMAGE_PIXELS:
        raise _Unfit(f"too many pixels, taken for a decompression bomb ({image.width * image.height:,})")
    _check(image)
    return image


def _check(image: Image.Image) -> None:
    width, height = image.size
    if image.mode == "F" or image.mode.startswith("I"):  # converted, all beyond 255 would be white, all of 0..1 black
        kind = "floating-point numbers" if image.mode == "F" else "more than 8 bits a pixel"
        raise _Unfit(f"it has {kind} (mode {image.mode}); scale it to 8 bits yourself, as its range is not known here")
    if min(width, height) < 1:
        raise _Unfit("the image has no pixels")
    if max(width, height) > ELONGATION * min(width, height):
        raise _Unfit(f"{width} x {height} pixels: one side is more than {ELONGATION} times the other")


def _complete(kind: str, start: bytes, end: bytes, size: int) -> bool:
    """Whether a file of that size, with these first and last bytes, ends as its format wants; False also where that
    cannot be said."""
    if kind in ("JPEG", "MPO"):
        return end.rfind(b"\xff\xd9") > end.rfind(b"\xff\xda")
    if kind == "PNG":
        return b"IEND" in end[-64:]
    if kind == "WEBP":  # the length that its first bytes state
        return int.from_bytes(start[4:8], "little") + 8 <= size
    return False


def _sums_up(image: Image.Image) -> bool:
    """Whether the checksums that a PNG carries are right; true of every other format. The image is used up."""
    with contextlib.suppress(OSError, SyntaxError, ValueError, struct.error):
        image.verify()
        return True
    return False


def _why(path: str | os.PathLike[str], error: Any) -> str:
    if isinstance(error, _Unfit):
        return str(error)
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"too many pixels, taken for a decompression bomb ({error})"
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        return "the file is empty (0 bytes)"
    if isinstance(error, Image.UnidentifiedImageError):
        return f"not an image that can be read ({', '.join(FORMATS)})"
    if isinstance(error, OSError) and error.errno is not None:
        return reason(path, error)
    return f"cannot be decoded ({str(error) or type(error).__name__})"
