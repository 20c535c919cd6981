"""Shapes as signed distances, and how they are painted on a canvas.

A canvas is a float32 array (3, 48, 48), RGB in [0, 1], pixel centres at (i + 0.5) * 2 / 48 - 1, y down. A shape is a
signed distance in local coordinates (negative inside); its edge is smoothed over one pixel, so there is no
supersampling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]

SIZE = 48
_AXIS = ((np.arange(SIZE, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / SIZE)) - np.float32(1)
X: Array = np.ascontiguousarray(np.broadcast_to(_AXIS[None, :], (SIZE, SIZE)))
Y: Array = np.ascontiguousarray(np.broadcast_to(_AXIS[:, None], (SIZE, SIZE)))

RGB: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.12, 0.12),
    "orange": (0.95, 0.55, 0.10),
    "yellow": (0.95, 0.88, 0.20),
    "green": (0.15, 0.62, 0.20),
    "blue": (0.15, 0.30, 0.85),
    "purple": (0.50, 0.15, 0.65),
    "pink": (0.98, 0.60, 0.75),
    "brown": (0.45, 0.27, 0.12),
    "white": (0.96, 0.96, 0.96),
    "black": (0.06, 0.06, 0.06),
    "gray": (0.55, 0.55, 0.55),
}

Colour = tuple[float, float, float]


class Frame(NamedTuple):
    """Local coordinates of a shape.

    Attributes:
        u, v: (48, 48) local x and y of every pixel centre.
        px: size of a pixel in local units.
    """

    u: Array
    v: Array
    px: float

    def place(self, x: float, y: float, scale: float = 1.0, angle: float = 0.0) -> Frame:
        """A frame inside this one: its origin at (x, y), its unit ``scale``, turned by ``angle`` radians."""
        c, s = math.cos(angle) / scale, math.sin(angle) / scale
        du, dv = self.u - x, self.v - y
        return Frame(c * du + s * dv, c * dv - s * du, self.px / scale)


CANVAS = Frame(X, Y, 2 / SIZE)


def pose(x: float, y: float, scale: float, angle: float, mirrored: bool = False) -> Frame:
    """The frame of an object on the canvas, mirrored left-right if asked."""
    frame = CANVAS.place(x, y, scale, angle)
    return Frame(-frame.u, frame.v, frame.px) if mirrored else frame


def paint(canvas: Array, frame: Frame, distance: Array, colour: Colour, alpha: float = 1.0) -> None:
    """Paint the inside of a shape on the canvas, in place."""
    cover = np.clip(np.float32(0.5) - distance * np.float32(1 / frame.px), 0, alpha)
    for channel, value in zip(canvas, colour, strict=True):
        channel += cover * (np.float32(value) - channel)


def disc(f: Frame, x: float, y: float, r: float) -> Array:
    """Distance to a disc."""
    return np.sqrt((f.u - x) ** 2 + (f.v - y) ** 2) - r


def ring(f: Frame, x: float, y: float, r: float, half_width: float) -> Array:
    """Distance to an annulus."""
    return np.abs(disc(f, x, y, r)) - half_width


def ellipse(f: Frame, x: float, y: float, rx: float, ry: float) -> Array:
    """Distance to an ellipse with half axes rx, ry (near its edge)."""
    return (np.sqrt(((f.u - x) / rx) ** 2 + ((f.v - y) / ry) ** 2) - 1) * min(rx, ry)


def box(f: Frame, x: float, y: float, hx: float, hy: float) -> Array:
    """Distance to a box with half sides hx, hy."""
    return np.maximum(np.abs(f.u - x) - hx, np.abs(f.v - y) - hy)


def capsule(f: Frame, ax: float, ay: float, bx: float, by: float, r: float) -> Array:
    """Distance to the segment a-b, thickened by r."""
    dx, dy = bx - ax, by - ay
    pu, pv = f.u - ax, f.v - ay
    t = np.clip((pu * dx + pv * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
    return np.sqrt((pu - t * dx) ** 2 + (pv - t * dy) ** 2) - r


def polygon(f: Frame, points: Sequence[tuple[float, float]]) -> Array:
    """Distance to a convex polygon, points clockwise as seen (y down)."""
    out: Array | None = None
    for (ax, ay), (bx, by) in zip(points, (*points[1:], points[0]), strict=True):
        length = math.hypot(bx - ax, by - ay)
        half = (f.u - ax) * ((by - ay) / length) - (f.v - ay) * ((bx - ax) / length)
        out = half if out is None else np.maximum(out, half)
    if out is None:
        raise ValueError("a polygon needs points")
    return out


def star(f: Frame, r: float, dent: float, points: int) -> Array:
    """Distance to a star in polar form, one point up."""
    radius = np.sqrt(f.u**2 + f.v**2)
    theta = np.arctan2(f.u, -f.v)
    return np.float32(0.7) * (radius - r * (1 - dent + dent * np.cos(points * theta)))


def heart(f: Frame) -> Array:
    """Distance to a heart: two discs on a triangle."""
    lobes = np.minimum(disc(f, -0.42, -0.3, 0.5), disc(f, 0.42, -0.3, 0.5))
    return np.minimum(lobes, polygon(f, ((-0.86, -0.05), (0.86, -0.05), (0.0, 0.95))))


def stripes(f: Frame, k: float = 9.0) -> Array:
    """Distance-like mask of stripes along v, to be intersected with a shape."""
    return np.sin(k * f.u) * np.float32(1 / k)


def checks(f: Frame, k: float = 7.0) -> Array:
    """Distance-like mask of a chequer."""
    return np.sin(k * f.u) * np.sin(k * f.v) * np.float32(1 / k)


def dots(f: Frame, step: float = 0.5, r: float = 0.15) -> Array:
    """Distance to a lattice of dots."""
    du = np.mod(f.u, np.float32(step)) - step / 2
    dv = np.mod(f.v, np.float32(step)) - step / 2
    return np.sqrt(du**2 + dv**2) - r


def luminance(colour: Colour) -> float:
    """Perceived brightness of a colour, in [0, 1]."""
    return 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]


def opposite(colour: Colour) -> Colour:
    """White for a dark colour, nearly black for a light one: visible on it."""
    return (0.12, 0.10, 0.10) if luminance(colour) > 0.5 else (0.95, 0.95, 0.93)


def shade(colour: Colour, factor: float) -> Colour:
    """The colour made darker (factor below 1) or lighter."""
    return (min(1.0, colour[0] * factor), min(1.0, colour[1] * factor), min(1.0, colour[2] * factor))
