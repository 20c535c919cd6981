"""Opens many images at once, with threads: a decoder works outside of Python's lock."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from clipbench.data.decoding import check_images

CHUNK = 64  # images that a thread opens before it says so
PAUSE = 10.0  # seconds between two lines of progress


def check_all(
    paths: Sequence[Path], name: str, check: Callable[[Sequence[Path]], list[str]] = check_images
) -> list[str]:
    """Opens every image; says on standard error how far it is, where it takes long.

    Args:
        paths: of the images.
        name: what they are, for the lines of progress.
        check: opens some images and gives a line for each that cannot be used.

    Returns:
        One line "path: reason" for each image that cannot be used, in the order given.
    """
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    found: list[str] = []
    began = told = time.monotonic()
    pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1))
    try:
        with warnings.catch_warnings():  # around all threads: inside one of them it would undo what another one set
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            for done, bad in enumerate(pool.map(check, chunks), 1):
                found += bad
                now = time.monotonic()
                if now - told > PAUSE:
                    told, left = now, (now - began) * (len(chunks) / done - 1)
                    seen = min(done * CHUNK, len(paths))
                    print(
                        f"clipbench: {seen:,} of {len(paths):,} images of {name} opened, about {left:,.0f} s left",
                        file=sys.stderr,
                    )
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C too: what was not begun is left
    return found
