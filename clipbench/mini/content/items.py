"""Things, objects, flowers and food: one item, or one dish, in the middle of the canvas."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from clipbench.mini.content.brush import Brush
from clipbench.mini.shapes import (
    Array,
    Colour,
    Frame,
    box,
    capsule,
    checks,
    disc,
    dots,
    ellipse,
    heart,
    luminance,
    opposite,
    polygon,
    ring,
    shade,
    star,
    stripes,
)

PATTERNS: dict[str, Callable[[Frame], Array]] = {
    "striped": stripes,
    "dotted": dots,
    "spotted": dots,
    "checkered": checks,
}


def coat(b: Brush, f: Frame, shape: Array, pattern: str, colour: Colour) -> None:
    """Paint a shape in a colour, with a pattern in white or nearly black on it; a rim keeps the outline."""
    b.paint(f, shape, colour)
    if pattern in PATTERNS:
        b.paint(f, np.maximum(shape + 0.1, PATTERNS[pattern](f)), opposite(colour))


def _outline(f: Frame, shape: str) -> Array:
    match shape:
        case "circle":
            return disc(f, 0, 0, 0.92)
        case "square":
            return box(f, 0, 0, 0.8, 0.8)
        case "triangle":
            return polygon(f, ((0.0, -0.95), (0.98, 0.8), (-0.98, 0.8)))
        case "star":
            return star(f, 0.98, 0.3, 5)
        case "cross":
            return np.minimum(box(f, 0, 0, 0.95, 0.32), box(f, 0, 0, 0.32, 0.95))
        case "ring":
            return ring(f, 0, 0, 0.7, 0.26)
        case "heart":
            return heart(f)
        case "diamond":
            return (np.abs(f.u) * np.float32(1.45) + np.abs(f.v) - 1) * np.float32(0.57)
    raise ValueError(f"no shape {shape!r}")


def draw_things(b: Brush, values: tuple[str, ...]) -> None:
    """A shape of one colour with a pattern."""
    pattern, colour, shape = values
    f = b.pose(0.18, 0.62, 0.95, 0.35)
    coat(b, f, _outline(f, shape), pattern, b.colour(colour))


def draw_objects(b: Brush, values: tuple[str, ...]) -> None:
    """A household thing of one colour on a light or dark plate whose form is the frame."""
    colour, kind, frame = values
    f = b.pose(0.16, 0.7, 0.96, 0.3)
    light = b.u(14) < 0.6
    plate = b.any_colour(15, 0.76, 0.95) if light else b.any_colour(15, 0.08, 0.24)
    if frame == "circle":
        d = disc(f, 0, 0, 0.98)
    elif frame == "square":
        d = box(f, 0, 0, 0.88, 0.88)
    else:
        d = (np.abs(f.u) + np.abs(f.v) - np.float32(1.22)) * np.float32(0.7)
    b.paint(f, d, plate)
    b.paint(f, np.abs(d) - np.float32(0.05), opposite(plate))
    _kind(b, f.place(0, 0, 0.64), kind, b.colour(colour))


def _kind(b: Brush, f: Frame, kind: str, c: Colour) -> None:
    dark = shade(c, 0.45)
    match kind:
        case "house":
            b.paint(f, box(f, 0, 0.35, 0.68, 0.5), c)
            b.paint(f, polygon(f, ((0.0, -0.95), (0.95, -0.12), (-0.95, -0.12))), c)
            b.paint(f, box(f, 0, 0.55, 0.18, 0.3), dark)
        case "tree":
            b.paint(f, box(f, 0, 0.6, 0.13, 0.4), dark)
            for x, y in ((-0.35, -0.1), (0.35, -0.1), (0.0, -0.45)):
                b.paint(f, disc(f, x, y, 0.46), c)
        case "key":
            b.paint(f, ring(f, 0, -0.5, 0.34, 0.14), c)
            b.paint(f, box(f, 0, 0.4, 0.12, 0.58), c)
            b.paint(f, np.minimum(box(f, 0.26, 0.85, 0.2, 0.1), box(f, 0.26, 0.5, 0.2, 0.1)), c)
        case "cup":
            b.paint(f, ring(f, 0.55, 0.1, 0.3, 0.1), c)
            b.paint(f, polygon(f, ((-0.7, -0.65), (0.6, -0.65), (0.42, 0.8), (-0.52, 0.8))), c)
            b.paint(f, ellipse(f, -0.05, -0.62, 0.62, 0.16), dark)
        case "fish":
            b.paint(f, ellipse(f, -0.15, 0, 0.75, 0.45), c)
            b.paint(f, polygon(f, ((0.4, 0.0), (1.0, -0.5), (1.0, 0.5))), c)
            b.paint(f, disc(f, -0.55, -0.1, 0.11), opposite(c))
        case "umbrella":
            b.paint(f, capsule(f, 0, -0.1, 0, 0.8, 0.06), dark)
            b.paint(f, np.maximum(ring(f, 0.18, 0.8, 0.18, 0.06), 0.8 - f.v), dark)
            b.paint(f, np.maximum(disc(f, 0, 0.0, 0.95), f.v + np.float32(0.02)), c)
        case "lamp":
            b.paint(f, box(f, 0, 0.4, 0.07, 0.45), dark)
            b.paint(f, box(f, 0, 0.85, 0.5, 0.1), dark)
            b.paint(f, polygon(f, ((-0.35, -0.9), (0.35, -0.9), (0.8, 0.05), (-0.8, 0.05))), c)
        case "mushroom":
            b.paint(f, box(f, 0, 0.45, 0.24, 0.5), (0.88, 0.84, 0.74))
            b.paint(f, np.maximum(ellipse(f, 0, 0.15, 0.92, 0.95), f.v - np.float32(0.15)), c)
            for x, y in ((-0.4, -0.15), (0.1, -0.45), (0.45, -0.1)):
                b.paint(f, disc(f, x, y, 0.13), opposite(c))


def draw_flowers(b: Brush, values: tuple[str, ...]) -> None:
    """Petals around a center."""
    colour, petals, center = values
    f = b.pose(0.13, 0.72, 0.95, 0.1)
    count = {"three": 3, "five": 5, "eight": 8}[petals]
    half_width = {3: 0.36, 5: 0.27, 8: 0.17}[count]
    c = b.colour(colour)
    phase = b.u(14, 0, 2 * math.pi)
    for i in range(count):
        leaf = f.place(0, 0, 1.0, phase + i * 2 * math.pi / count)
        b.paint(f, ellipse(leaf, 0.62, 0, 0.38, half_width), c)
    b.paint(f, disc(f, 0, 0, 0.34), b.colour(center, 8))


# Places of five items on a dish of half width 1.
_PLACES = ((0.0, 0.0), (-0.45, -0.36), (0.45, 0.36), (-0.42, 0.36), (0.42, -0.36))


def draw_food(b: Brush, values: tuple[str, ...]) -> None:
    """Five pieces in a bowl (from the side), on a tray or on a plate (from above)."""
    colour, item, dish = values
    f = b.pose(0.08, 0.84, 1.0, 0.12)
    ware = b.any_colour(15, 0.62, 0.9) if b.u(14) < 0.5 else b.any_colour(15, 0.12, 0.35)
    c = b.colour(colour)
    if dish == "bowl":
        places = tuple((0.9 * x, -0.25 + 0.75 * y) for x, y in _PLACES)
    elif dish == "tray":
        b.paint(f, box(f, 0, 0, 0.98, 0.78), shade(ware, 0.55))
        b.paint(f, box(f, 0, 0, 0.84, 0.64), ware)
        places = _PLACES
    else:
        b.paint(f, disc(f, 0, 0, 0.98), ware)
        b.paint(f, ring(f, 0, 0, 0.78, 0.04), shade(ware, 0.55))
        places = tuple((0.9 * x, y) for x, y in _PLACES)
    for i, (x, y) in enumerate(places):
        at = f.place(
            x + b.u(20 + 3 * i, -0.06, 0.06), y + b.u(21 + 3 * i, -0.06, 0.06), 1.0, b.u(22 + 3 * i, -0.5, 0.5)
        )
        _piece(b, at, item, c)
    if dish == "bowl":
        b.paint(f, np.maximum(disc(f, 0, 0.05, 0.95), np.float32(0.1) - f.v), ware)
        b.paint(f, box(f, 0, 0.12, 0.98, 0.06), shade(ware, 0.6))


def _piece(b: Brush, f: Frame, item: str, c: Colour) -> None:
    edge = shade(c, 0.5) if luminance(c) > 0.3 else shade(c, 1.9)
    match item:
        case "balls":
            b.paint(f, disc(f, 0, 0, 0.31), edge)
            b.paint(f, disc(f, 0, 0, 0.23), c)
        case "sticks":
            b.paint(f, box(f, 0, 0, 0.55, 0.12), edge)
            b.paint(f, box(f, 0, 0, 0.5, 0.06), c)
        case "cubes":
            b.paint(f, box(f, 0, 0, 0.29, 0.29), edge)
            b.paint(f, box(f, 0, 0, 0.21, 0.21), c)
        case "slices":
            b.paint(f, np.maximum(disc(f, 0, -0.26, 0.56), np.float32(-0.18) - f.v), edge)
            b.paint(f, np.maximum(disc(f, 0, -0.24, 0.46), np.float32(-0.12) - f.v), c)
