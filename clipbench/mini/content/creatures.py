"""Pets and actions: a face that fills the canvas, and a figure from head to foot."""

from __future__ import annotations

import itertools

import numpy as np

from clipbench.mini.content.brush import Brush
from clipbench.mini.content.items import coat
from clipbench.mini.shapes import Frame, box, capsule, disc, ellipse, opposite, polygon, ring, shade

Point = tuple[float, float]


def draw_pets(b: Brush, values: tuple[str, ...]) -> None:
    """A face: the ears say which animal, the coat is on head and ears."""
    pattern, colour, animal = values
    f = b.pose(0.2, 0.6, 0.92, 0.4)
    c = b.colour(colour)
    head = ellipse(f, 0, 0.2, 0.78, 0.7)
    if animal == "cat":
        left = polygon(f, ((-0.78, -0.95), (-0.12, -0.35), (-0.72, 0.05)))
        right = polygon(f, ((0.78, -0.95), (0.72, 0.05), (0.12, -0.35)))
        shape = np.minimum(head, np.minimum(left, right))
    elif animal == "dog":
        shape = ellipse(f, 0, 0.1, 0.62, 0.74)
    elif animal == "rabbit":
        ears = np.minimum(ellipse(f, -0.3, -0.62, 0.17, 0.5), ellipse(f, 0.3, -0.62, 0.17, 0.5))
        shape = np.minimum(ellipse(f, 0, 0.32, 0.62, 0.58), ears)
    else:
        ears = np.minimum(disc(f, -0.62, -0.48, 0.3), disc(f, 0.62, -0.48, 0.3))
        shape = np.minimum(ellipse(f, 0, 0.1, 0.86, 0.78), ears)
    coat(b, f, shape, pattern, c)
    if animal == "dog":
        for side in (-1, 1):
            ear = f.place(side * 0.68, 0.05, 1.0, -side * 0.25)
            b.paint(f, ellipse(ear, 0, 0, 0.22, 0.58), shade(c, 0.6))
    if animal in ("dog", "bear"):
        b.paint(f, ellipse(f, 0, 0.48, 0.34, 0.26), (0.85, 0.76, 0.62))
    y = 0.02 if animal != "rabbit" else 0.2
    for side in (-1, 1):
        b.paint(f, disc(f, side * 0.3, y, 0.14), (0.95, 0.95, 0.85))
        b.paint(f, disc(f, side * 0.3, y, 0.08), (0.05, 0.05, 0.08))
    nose = (0.9, 0.45, 0.5) if animal in ("cat", "rabbit") else (0.08, 0.06, 0.06)
    b.paint(f, ellipse(f, 0, 0.4, 0.12, 0.09), nose)


_LEGS: dict[str, tuple[float, tuple[tuple[Point, ...], ...]]] = {
    # pose: drop of the upper body, legs as chains of points from the hip
    "standing": (0.0, (((0.0, 0.18), (-0.16, 0.98)), ((0.0, 0.18), (0.16, 0.98)))),
    "running": (0.0, (((0.0, 0.18), (0.5, 0.4), (0.42, 0.92)), ((0.0, 0.18), (-0.38, 0.55), (-0.92, 0.5)))),
    "kneeling": (0.38, (((0.0, 0.5), (0.48, 0.5), (0.48, 0.96)), ((0.0, 0.5), (-0.08, 0.92), (-0.62, 0.94)))),
}
_HANDS: dict[str, Point] = {"raised": (0.52, -0.92), "spread": (0.82, -0.36), "lowered": (0.5, 0.22)}


def draw_actions(b: Brush, values: tuple[str, ...]) -> None:
    """A figure with both arms alike and a tool in one hand."""
    arms, stance, tool = values
    f = b.pose(0.08, 0.8, 0.92, 0.08)
    cloth = b.any_colour(14, 0.05, 0.95)
    skin = b.near((0.86, 0.66, 0.5), 17)
    # A dark rim keeps the figure apart from any background.
    rim = opposite(cloth)
    drop, legs = _LEGS[stance]
    hx, hy = _HANDS[arms]
    hand = (hx, hy + drop)
    limbs = [chain for leg in legs for chain in itertools.pairwise(leg)]
    parts = [capsule(f, *a, *z, 0.11) for a, z in limbs]
    parts.append(capsule(f, 0, -0.42 + drop, 0, 0.12 + drop, 0.19))
    sleeves = [capsule(f, 0, -0.42 + drop, side * hand[0], hand[1], 0.1) for side in (-1, 1)]
    body = np.minimum.reduce(parts)
    b.paint(f, np.minimum.reduce([body, *sleeves]) - np.float32(0.05), rim)
    b.paint(f, body, cloth)
    b.paint(f, np.minimum.reduce(sleeves), skin)
    b.paint(f, disc(f, 0, -0.78 + drop, 0.25), rim)
    b.paint(f, disc(f, 0, -0.78 + drop, 0.2), skin)
    _tool(b, f.place(hand[0], hand[1]), tool)


def _tool(b: Brush, f: Frame, tool: str) -> None:
    c = b.any_colour(20, 0.1, 0.95)
    rim = opposite(c)
    match tool:
        case "ball":
            d = disc(f, 0, 0, 0.34)
        case "hoop":
            d = ring(f, 0, 0, 0.46, 0.07)
        case "stick":
            d = capsule(f, -0.25, -0.9, 0.25, 0.9, 0.06)
        case _:
            d = box(f, 0, 0, 0.34, 0.34)
    b.paint(f, d - np.float32(0.06), rim)
    b.paint(f, d, c)
    if tool == "box":
        # Tied with a band both ways: at this size a square alone looks round.
        b.paint(f, np.maximum(d, np.minimum(np.abs(f.u), np.abs(f.v)) - np.float32(0.07)), rim)
