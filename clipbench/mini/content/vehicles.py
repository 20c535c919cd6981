"""Cars from the side and aircraft from above."""

from __future__ import annotations

import numpy as np

from clipbench.mini.content.brush import Brush
from clipbench.mini.shapes import Array, Colour, Frame, box, capsule, disc, ellipse, luminance, polygon

_GLASS: Colour = (0.62, 0.78, 0.88)
_DARK: Colour = (0.08, 0.08, 0.10)


def _body(f: Frame, body: str) -> tuple[Array, list[Array], float, float]:
    """Silhouette, windows, height of the roof and half length of the roof."""
    match body:
        case "sedan":
            cabin = polygon(f, ((-0.36, -0.42), (0.3, -0.42), (0.62, 0.05), (-0.64, 0.05)))
            shape = np.minimum(box(f, 0, 0.18, 0.98, 0.2), cabin)
            return shape, [box(f, -0.2, -0.2, 0.16, 0.12), box(f, 0.2, -0.2, 0.16, 0.12)], -0.42, 0.3
        case "truck":
            shape = np.minimum(box(f, -0.32, -0.14, 0.66, 0.52), box(f, 0.68, 0.1, 0.3, 0.28))
            return shape, [box(f, 0.76, 0.0, 0.14, 0.11)], -0.66, 0.62
        case "van":
            shape = polygon(f, ((-0.85, -0.5), (0.45, -0.5), (0.9, 0.0), (0.9, 0.38), (-0.85, 0.38)))
            return shape, [polygon(f, ((0.2, -0.38), (0.42, -0.38), (0.7, -0.04), (0.2, -0.04)))], -0.5, 0.55
        case "bus":
            windows = [box(f, x, -0.2, 0.13, 0.14) for x in (-0.75, -0.38, 0.0, 0.38, 0.75)]
            return box(f, 0, -0.06, 1.0, 0.44), windows, -0.5, 0.9
        case "jeep":
            shape = np.minimum(box(f, 0.05, 0.16, 0.72, 0.22), box(f, -0.2, -0.28, 0.46, 0.3))
            shape = np.minimum(shape, disc(f, -0.8, -0.02, 0.22))
            return shape, [box(f, -0.4, -0.32, 0.18, 0.16), box(f, 0.04, -0.32, 0.16, 0.16)], -0.58, 0.4
    raise ValueError(f"no car body {body!r}")


def draw_cars(b: Brush, values: tuple[str, ...]) -> None:
    """A car of one colour, with a light stripe along its side or a dark rack on its roof."""
    colour, body, extra = values
    f = b.pose(0.1, 0.76, 0.94, 0.06)
    c = b.colour(colour)
    shape, windows, roof, half = _body(f, body)
    b.paint(f, shape, c)
    for window in windows:
        b.paint(f, window, _GLASS)
    if extra == "stripe":
        light: Colour = (0.97, 0.97, 0.97) if luminance(c) < 0.6 else _DARK
        b.paint(f, np.maximum(shape, box(f, 0, 0.17, 1.1, 0.085)), light)
    else:
        rail = box(f, 0, roof - 0.22, half, 0.06)
        posts = [box(f, x, roof - 0.1, 0.05, 0.12) for x in (-0.8 * half, 0.0, 0.8 * half)]
        b.paint(f, np.minimum.reduce([rail, *posts]), _DARK)
    r = {"jeep": 0.27, "truck": 0.24, "bus": 0.2, "van": 0.22, "sedan": 0.22}[body]
    for x in (-0.55, 0.55):
        b.paint(f, disc(f, x, 0.42, r), _DARK)
        b.paint(f, disc(f, x, 0.42, 0.09), (0.7, 0.7, 0.72))


_WINGS: dict[str, tuple[tuple[float, float], ...]] = {
    # right wing; the left one is its mirror image
    "straight": ((0.0, -0.22), (0.98, -0.2), (0.98, 0.06), (0.0, 0.1)),
    "swept": ((0.0, -0.4), (0.98, 0.3), (0.98, 0.52), (0.0, 0.05)),
    "delta": ((0.0, -0.6), (0.92, 0.5), (0.92, 0.56), (0.0, 0.56)),
}
_ENGINES: dict[str, tuple[float, ...]] = {"one": (0.0,), "two": (0.46,), "four": (0.34, 0.74)}
# Where the middle of the wing lies at the side distance x.
_LINE = {"straight": (-0.07, 0.0), "swept": (-0.17, 0.6), "delta": (0.0, 0.45)}


def draw_aircraft(b: Brush, values: tuple[str, ...]) -> None:
    """A plane from above, nose up; engines on the nose or the wings; the tail plane has the colour."""
    wing, engines, tail = values
    f = b.pose(0.14, 0.74, 1.0, 0.8)
    hull = b.any_colour(14, 0.72, 0.92)
    mirrored = Frame(-f.u, f.v, f.px)
    for side in (f, mirrored):
        b.paint(f, polygon(side, _WINGS[wing]), hull)
    b.paint(f, capsule(f, 0, -0.8, 0, 0.8, 0.14), hull)
    offset, slope = _LINE[wing]
    for x in _ENGINES[engines]:
        if x == 0.0:
            b.paint(f, ellipse(f, 0, -0.82, 0.17, 0.2), _DARK)
        else:
            for side in (f, mirrored):
                b.paint(f, box(side, x, offset + slope * x - 0.06, 0.1, 0.2), _DARK)
    b.paint(f, polygon(f, ((-0.26, 0.6), (0.26, 0.6), (0.5, 0.98), (-0.5, 0.98))), b.colour(tail))
