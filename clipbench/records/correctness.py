"""Which test images were right, one bit each: small enough to stand in a record, exact enough for paired tests."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clipbench.errors import RecordError

if TYPE_CHECKING:
    import numpy as np


def pack_bits(correct: Sequence[bool] | np.ndarray) -> str:
    """The bitmap of per-image correctness as base64 text.

    Args:
        correct: (N,) booleans (or 0 and 1) in the order of the split's items.

    Returns:
        base64 of ceil(N/8) bytes, the first image in the highest bit of the first byte, padded with zeros.
    """
    import numpy as np

    bits = np.asarray(correct)
    if bits.ndim != 1 or not np.isin(bits, (0, 1)).all():
        raise ValueError("per-image correctness must be one row of booleans")
    return base64.b64encode(np.packbits(bits.astype(bool)).tobytes()).decode("ascii")


def unpack_bits(text: str, n: int) -> np.ndarray:
    """The booleans that `pack_bits` packed.

    Args:
        text: the bitmap.
        n: number of images.

    Returns:
        (n,) bool.

    Raises:
        RecordError: the text is no bitmap of n images.
    """
    import numpy as np

    data = _decode(text, n)
    return np.unpackbits(np.frombuffer(data, dtype=np.uint8), count=n).astype(bool)


def count_bits(text: str, n: int) -> int:
    """How many of the n images were right, without NumPy.

    Raises:
        RecordError: the text is no bitmap of n images.
    """
    return int.from_bytes(_decode(text, n), "big").bit_count()


def _decode(text: str, n: int) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RecordError(f"a bitmap of {n} images that is not base64") from error
    if len(data) != (n + 7) // 8:
        raise RecordError(f"a bitmap of {len(data)} bytes where {n} images need {(n + 7) // 8}")
    if n % 8 and data[-1] & (0xFF >> n % 8):
        raise RecordError(f"a bitmap with bits beyond the last of {n} images")
    return data
