"""`clipbench predict`: what was learned, on one's own images and class names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipbench.errors import ConfigError, DataError

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")


def find_images(places: Sequence[str]) -> list[Path]:
    """Files as given, folders searched through, sorted.

    Raises:
        DataError: a place that does not exist, or no image anywhere.
    """
    found: list[Path] = []
    for place in map(Path, places):
        if place.is_dir():
            found += sorted(p for p in place.rglob("*") if p.suffix.lower() in ENDINGS)
        elif place.is_file():
            found.append(place)
        else:
            raise DataError(f"there is no image or folder '{place}'")
    if not found:
        raise DataError(f"no image below {', '.join(places)} (endings: {' '.join(ENDINGS)})")
    return found


def predict(
    places: Sequence[str], weights: Path, classnames: Sequence[str] | None = None, top: int = 3
) -> list[dict[str, Any]]:
    """The most probable classes of every image.

    Args:
        places: image files and folders.
        weights: file of what was learned.
        classnames: any class names; None: those that were trained on.
        top: how many classes to name.

    Returns:
        Per image: `image`, and `classes` as pairs of name and probability, best first.

    Raises:
        DataError: damaged or missing images, all of them in one message.
        MethodError: weights of another backbone, or none at all.
    """
    if top < 1:
        raise ConfigError(f"--top {top}: at least one class is to be named")
    files = find_images(places)
    if classnames is not None and len(classnames) < 2:
        raise ConfigError("--classes needs at least two names, separated by commas")
    from clipbench.data.images import check_images
    from clipbench.methods.base import Method
    from clipbench.methods.weights_file import read_header

    if classnames is None:
        classnames = read_header(weights).classnames
    if bad := check_images(files):
        raise DataError("\n".join(bad))
    probabilities = Method.load(weights).predict(files, classes=classnames)
    rows = []
    for file, row in zip(files, probabilities, strict=True):
        best = row.topk(min(top, len(classnames)))
        pairs = [(classnames[i], round(p, 6)) for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]
        rows.append({"image": str(file), "classes": pairs})
    return rows
