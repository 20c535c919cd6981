"""Scenes, textures and satellite pictures: families that cover the whole canvas."""

from __future__ import annotations

import math

import numpy as np

from clipbench.mini.content.brush import Brush
from clipbench.mini.shapes import (
    CANVAS,
    Array,
    Colour,
    Frame,
    box,
    disc,
    ellipse,
    luminance,
    polygon,
    shade,
    star,
)


def draw_scenes(b: Brush, values: tuple[str, ...]) -> None:
    """Sky with something in it, horizon, ground."""
    ground, sky, above = values
    f = CANVAS
    c = b.colour(sky)
    horizon = b.u(14, 0.0, 0.22)
    for channel, value in zip(b.canvas, c, strict=True):
        channel[:] = np.float32(value) * (np.float32(0.92) - np.float32(0.1) * f.v)
    _sky(b, f, above)
    _ground(b, f, ground, horizon)


def _sky(b: Brush, f: Frame, above: str) -> None:
    if above == "sun":
        x, y = b.u(15, -0.6, 0.6), b.u(16, -0.7, -0.45)
        b.paint(f, disc(f, x, y, 0.38), (1.0, 0.93, 0.55), 0.45)
        b.paint(f, disc(f, x, y, 0.26), (1.0, 0.97, 0.72))
    elif above == "clouds":
        for i in range(3):
            x, y = b.u(15 + 2 * i, -0.3, 0.3) + (i - 1) * 0.62, b.u(16 + 2 * i, -0.8, -0.35)
            puffs = [ellipse(f, x + dx, y + dy, 0.24, 0.13) for dx, dy in ((-0.17, 0.03), (0.0, -0.06), (0.17, 0.03))]
            b.paint(f, np.minimum.reduce(puffs), (0.93, 0.93, 0.96))
    else:
        for i in range(12):
            x = -0.9 + 0.36 * (i % 6) + b.u(15 + 2 * i, -0.13, 0.13)
            y = -0.75 + 0.42 * (i // 6) + b.u(16 + 2 * i, -0.15, 0.15)
            b.paint(f, disc(f, x, y, 0.05), (1.0, 1.0, 0.95))


def _ground(b: Brush, f: Frame, ground: str, horizon: float) -> None:
    below = horizon - f.v
    phase = b.u(42, 0, 6.28)
    match ground:
        case "desert":
            b.paint(f, below, b.near((0.86, 0.70, 0.42), 45))
            for i in range(3):
                x, y = b.u(48 + i, -0.25, 0.25) + (i - 1) * 0.75, horizon + 0.3 + 0.2 * i
                b.paint(f, np.maximum(ellipse(f, x, y + 0.2, 0.6, 0.3), below), (0.70, 0.53, 0.28))
        case "forest":
            b.paint(f, below, b.near((0.10, 0.30, 0.12), 45))
            for i in range(7):
                x, top = -0.96 + 0.32 * i + b.u(48 + i, -0.06, 0.06), horizon - 0.38 + b.u(56 + i, -0.1, 0.1)
                b.paint(
                    f, polygon(f, ((x, top), (x + 0.24, horizon + 0.4), (x - 0.24, horizon + 0.4))), (0.06, 0.24, 0.08)
                )
        case "sea":
            b.paint(f, below, b.near((0.08, 0.32, 0.55), 45))
            waves = np.sin(22 * f.v + np.float32(1.2) * np.sin(6 * f.u + phase)) * np.float32(1 / 22)
            b.paint(f, np.maximum(waves + 0.02, below), (0.55, 0.75, 0.85))
        case "city":
            b.paint(f, below, b.near((0.30, 0.30, 0.33), 45))
            for i in range(6):
                x, h = -0.85 + 0.34 * i, b.u(48 + i, 0.25, 0.6)
                b.paint(f, box(f, x, horizon + 0.1, 0.14, h), shade((0.36, 0.36, 0.42), b.u(54 + i, 0.7, 1.3)))
                for k in range(3):
                    b.paint(f, box(f, x, horizon + 0.2 - h + 0.2 * k, 0.07, 0.04), (0.95, 0.88, 0.5))
        case "mountains":
            b.paint(f, below, b.near((0.33, 0.36, 0.34), 45))
            for i in range(3):
                x, top = -0.7 + 0.7 * i + b.u(48 + i, -0.15, 0.15), horizon - b.u(52 + i, 0.4, 0.62)
                b.paint(
                    f, polygon(f, ((x, top), (x + 0.6, horizon + 0.25), (x - 0.6, horizon + 0.25))), (0.40, 0.38, 0.40)
                )
                b.paint(f, polygon(f, ((x, top), (x + 0.2, top + 0.24), (x - 0.2, top + 0.24))), (0.96, 0.97, 0.98))
        case "field":
            b.paint(f, below, b.near((0.42, 0.66, 0.20), 45))
            depth = np.maximum(f.v - np.float32(horizon - 0.25), np.float32(0.2))
            rows = np.sin(9 * f.u / depth + phase) * np.float32(0.05)
            b.paint(f, np.maximum(rows, below), (0.62, 0.74, 0.26))


def draw_textures(b: Brush, values: tuple[str, ...]) -> None:
    """A pattern in two random colours, fine or coarse; its rows run along the direction; somewhere a flaw."""
    direction, pattern, flaw = values
    diagonal = math.pi / 4 if b.u(4) < 0.5 else -math.pi / 4
    angle = {"horizontal": 0.0, "vertical": math.pi / 2, "diagonal": diagonal}[direction]
    angle += b.u(3, -0.08, 0.08)
    rate = b.u(2, 1.3, 2.4)
    f = CANVAS.place(b.u(0, -1, 1), b.u(1, -1, 1), 1 / rate, angle)
    one, two = b.any_colour(14), b.any_colour(17)
    if abs(luminance(one) - luminance(two)) < 0.35:
        two = (0.06, 0.06, 0.06) if luminance(one) > 0.5 else (0.94, 0.94, 0.94)
    for channel, value in zip(b.canvas, one, strict=True):
        channel[:] = value
    b.paint(f, _pattern(f, pattern), two)
    _flaw(b, CANVAS.place(b.u(20, -0.45, 0.45), b.u(21, -0.45, 0.45), 0.42, b.u(22, 0, 6.28)), flaw)


def _flaw(b: Brush, f: Frame, flaw: str) -> None:
    if flaw == "hole":
        d = disc(f, 0, 0, 0.85)
    elif flaw == "tear":
        d = ellipse(f, 0, 0, 1.5, 0.32)
    else:
        d = star(f, 1.1, 0.35, 5)
    # White in black or black in white, so that it shows on any two colours and its own says nothing.
    inner, rim = ((0.95, 0.95, 0.93), (0.05, 0.05, 0.05)) if b.u(23) < 0.5 else ((0.05, 0.05, 0.05), (0.95, 0.95, 0.93))
    b.paint(f, d - np.float32(0.22), rim)
    b.paint(f, d, inner)


def _row(v: Array) -> Array:
    """Distance to the middle of the nearest row, rows one unit apart."""
    return np.abs(np.mod(v, np.float32(1)) - np.float32(0.5))


def _pattern(f: Frame, pattern: str) -> Array:
    """Distance-like mask with rows along u, one unit apart."""
    match pattern:
        case "stripes":
            return _row(f.v) - np.float32(0.25)
        case "waves":
            return (_row(f.v + np.float32(0.3) * np.sin(np.float32(4.2) * f.u)) - np.float32(0.2)) * np.float32(0.7)
        case "zigzags":
            tooth = np.abs(np.mod(f.u, np.float32(1)) - np.float32(0.5)) * np.float32(1.7)
            return (_row(f.v + tooth) - np.float32(0.2)) * np.float32(0.6)
        case "dashes":
            odd = np.mod(np.floor(f.v), 2) * np.float32(0.75)
            along = np.abs(np.mod(f.u + odd, np.float32(1.5)) - np.float32(0.75)) - np.float32(0.48)
            return np.maximum(_row(f.v) - np.float32(0.17), along)
        case "beads":
            along = np.mod(f.u, np.float32(0.66)) - np.float32(0.33)
            beads = np.sqrt(along**2 + _row(f.v) ** 2) - np.float32(0.28)
            return np.minimum(beads, _row(f.v) - np.float32(0.06))
        case "bricks":
            odd = np.mod(np.floor(f.v), 2) * np.float32(0.9)
            along = np.abs(np.mod(f.u + odd, np.float32(1.8)) - np.float32(0.9))
            return np.maximum(_row(f.v) - np.float32(0.4), along - np.float32(0.8))
        case "crosses":
            # Closer along the row than across, or no direction would show.
            along = np.abs(np.mod(f.u, np.float32(0.68)) - np.float32(0.34))
            across = _row(f.v)
            return np.minimum(
                np.maximum(along - np.float32(0.27), across - np.float32(0.1)),
                np.maximum(along - np.float32(0.1), across - np.float32(0.27)),
            )
        case "triangles":
            down = np.mod(f.v, np.float32(1)) - np.float32(0.1)
            return np.maximum(_row(f.u) - np.float32(0.55) * down, down - np.float32(0.8)) * np.float32(0.9)
    raise ValueError(f"no pattern {pattern!r}")


_LAND: dict[str, Colour] = {
    "green": (0.30, 0.58, 0.22),
    "brown": (0.45, 0.30, 0.16),
    "yellow": (0.86, 0.76, 0.30),
    "gray": (0.56, 0.56, 0.55),
}


def draw_satellite(b: Brush, values: tuple[str, ...]) -> None:
    """Land in parcels, a structure on it, and a strip of something else along one of four sides."""
    structure, land, beside = values
    c = b.near(_LAND[land], 5)
    side = int(b.u(14, 0, 4))
    # In this frame the strip is always at the bottom.
    f = CANVAS.place(0, 0, 1.0, side * math.pi / 2)
    for channel, value in zip(b.canvas, c, strict=True):
        channel[:] = value
    for i in range(4):
        tone = b.u(18 + i, 0.82, 1.16)
        x, y = b.u(22 + i, -1, 1), b.u(26 + i, -1, 0.6)
        b.paint(f, box(f, x, y, b.u(30 + i, 0.3, 0.6), 0.4), shade(c, tone))
    _structure(b, f, structure)
    _strip(b, f, beside)


def _structure(b: Brush, f: Frame, structure: str) -> None:
    bend, shift = b.u(34, 0, 6.28), b.u(35, -0.35, 0.0)
    places = [(-0.6 + 0.6 * (i % 3), -0.7 + 0.5 * (i // 3)) for i in range(6)]
    match structure:
        case "river":
            line = f.v - np.float32(shift - 0.2) - np.float32(0.28) * np.sin(np.float32(3.4) * f.u + bend)
            b.paint(f, (np.abs(line) - np.float32(0.19)) * np.float32(0.75), (0.20, 0.42, 0.72))
        case "road":
            slope = b.u(34, -0.4, 0.4)
            line = f.v - np.float32(shift - 0.2) - np.float32(slope) * f.u
            b.paint(f, np.abs(line) - np.float32(0.16), (0.17, 0.17, 0.18))
            dash = np.abs(np.mod(f.u, np.float32(0.4)) - np.float32(0.2)) - np.float32(0.12)
            b.paint(f, np.maximum(np.abs(line) - np.float32(0.04), dash), (0.95, 0.95, 0.9))
        case "houses":
            for i, (x, y) in enumerate(places):
                x, y = x + b.u(40 + 2 * i, -0.1, 0.1), y + b.u(41 + 2 * i, -0.08, 0.08)
                b.paint(f, box(f, x + 0.05, y + 0.05, 0.17, 0.14), (0.08, 0.08, 0.08), 0.7)
                b.paint(f, box(f, x, y, 0.16, 0.13), (0.78, 0.32, 0.24))
                b.paint(f, box(f, x, y, 0.16, 0.025), (0.95, 0.8, 0.75))
        case "ponds":
            for i, (x, y) in enumerate(places[:2] + places[3:5]):
                x, y = x + 0.3 + b.u(40 + 2 * i, -0.12, 0.12), y + b.u(41 + 2 * i, -0.08, 0.08)
                b.paint(f, ellipse(f, x, y, b.u(56 + i, 0.19, 0.27), 0.2), (0.20, 0.42, 0.72))
        case "trees":
            for i in range(12):
                x, y = (
                    -0.75 + 0.5 * (i % 4) + b.u(40 + 2 * i, -0.12, 0.12),
                    -0.75 + 0.45 * (i // 4) + b.u(41 + 2 * i, -0.1, 0.1),
                )
                b.paint(f, disc(f, x, y, 0.14), (0.05, 0.22, 0.07))
                b.paint(f, disc(f, x - 0.03, y - 0.03, 0.07), (0.16, 0.42, 0.14))


def _strip(b: Brush, f: Frame, beside: str) -> None:
    edge = b.u(15, 0.42, 0.58)
    inside = np.float32(edge) - f.v
    match beside:
        case "sea":
            b.paint(f, inside, b.near((0.08, 0.26, 0.52), 65))
            foam = np.abs(f.v - np.float32(edge) - np.float32(0.03) * np.sin(9 * f.u)) - np.float32(0.045)
            b.paint(f, foam, (0.88, 0.93, 0.95))
        case "forest":
            b.paint(f, inside, b.near((0.08, 0.28, 0.10), 65))
            for i in range(14):
                x, y = -0.9 + 0.3 * (i % 7) + b.u(68 + i, -0.06, 0.06), edge + 0.12 + 0.25 * (i // 7)
                b.paint(f, disc(f, x, y, 0.12), (0.13, 0.40, 0.14) if i % 2 else (0.04, 0.17, 0.05))
        case "town":
            b.paint(f, inside, b.near((0.42, 0.42, 0.44), 65))
            for i in range(10):
                x, y = -0.8 + 0.4 * (i % 5), edge + 0.15 + 0.28 * (i // 5)
                tone = b.u(68 + i, 0.75, 0.98)
                b.paint(f, box(f, x, y, 0.13, 0.09), (tone, tone, tone))
