"""Which recipes of a figure have their names beside their points, which in the legend, and how their marks look.

A figure stays readable, and quick to draw, with any number of recipes. Where there are too many to name them all beside
their points, only those on the Pareto front and the best few are; the others are in the legend where they are few, and
nameless dots where they are many.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

SHAPES = "osD^vP*Xh<>dp8"
SHADES = ("0.15", "0.4", "0.65")
BEST = 8  # recipes that are named for their accuracy alone
MOST = 24  # names beside points; with no more points than this, all of them
LEGEND = len(SHAPES) * len(SHADES) - MOST  # recipes in the legend: every mark with a name has a look of its own


class Naming(NamedTuple):
    """Indices of points, each in one of the three.

    Attributes:
        beside: named beside the point, at most `MOST`.
        listed: named in the legend, at most `LEGEND`.
        nameless: dots without a name.
    """

    beside: list[int]
    listed: list[int]
    nameless: list[int]


def choose_names(
    values: Sequence[float], front: Iterable[int], first: Iterable[int] = (), unranked: Collection[int] = ()
) -> Naming:
    """Divides the points of a figure by where their names stand.

    Args:
        values: what the recipes are ranked by, one for each point; more is better.
        front: points of the Pareto front, which come before the best few; the better ones where it is long.
        first: points that come before the front (zero-shot).
        unranked: points that are never among the best few, since their novel rule is frozen.
    """
    everything = range(len(values))
    if len(values) <= MOST:
        return Naming(list(everything), [], [])
    by_value = sorted(everything, key=lambda i: -values[i])
    corners = set(front)
    best = [i for i in by_value if i not in unranked][:BEST]
    beside = list(dict.fromkeys([*first, *(i for i in by_value if i in corners), *best]))[:MOST]
    others = sorted(set(everything) - set(beside))
    return Naming(sorted(beside), others, []) if len(others) <= LEGEND else Naming(sorted(beside), [], others)


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which points nothing beats: no other one costs no more, is no worse, and is better in one of the two.

    Args:
        points: (cost, value); less cost and more value are better.

    Returns:
        Indices by rising cost.
    """
    kept, best = list[int](), -math.inf
    by_cost = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    for index in by_cost:
        cost, value = points[index]
        if value > best or (kept and points[kept[-1]] == (cost, value)):
            kept.append(index)
            best = value
    return kept


def mark(shape: int, frozen: bool = False) -> dict[str, Any]:
    """How a mark looks, as arguments of `Axes.plot`.

    Args:
        shape: its number; the first `MOST + LEGEND` differ.
        frozen: whether the novel classes are answered zero-shot: the mark is hollow.
    """
    face = "white" if frozen else SHADES[shape % len(SHADES)]
    edge = {"markeredgecolor": "black", "markeredgewidth": 1.0, "markersize": 7}
    return {"linestyle": "none", "marker": SHAPES[shape % len(SHAPES)], "markerfacecolor": face, **edge}


def dot() -> dict[str, Any]:
    """How a recipe without a name looks, as arguments of `Axes.plot`."""
    edge = {"markeredgecolor": "0.55", "markeredgewidth": 0.5, "markersize": 3.5}
    return {"linestyle": "none", "marker": "o", "markerfacecolor": "0.8", **edge}


def legend_lines(points: int, columns: int) -> int:
    """Lines to keep free for the legend of that many points."""
    listed = points - BEST if MOST < points <= MOST + LEGEND else 1
    return math.ceil(min(listed, LEGEND) / columns)
