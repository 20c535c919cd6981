"""Names beside points: each label takes the nearest free place, so that no two collide and none leaves the axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation, Text
    from matplotlib.transforms import Bbox

DIRECTIONS = (0, 180, 45, 315, 135, 225, 90, 270, 22, 338, 158, 202)  # degrees; beside the point first
DISTANCES = (7, 12, 18, 26, 36, 48, 62, 80, 100, 124)  # typographic points


def place_labels(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    size: float = 8,
    avoid: Sequence[Text] = (),
    directions: Sequence[int] = DIRECTIONS,
) -> list[Annotation]:
    """Writes a name beside every point; a thin line leads to it where it had to move away.

    Deterministic: the same points give the same places. Where all candidate places are taken, the one with the least
    overlap is used. Call it when the limits of the axes are final.

    Args:
        axes: matplotlib axes of a figure that can be drawn (Agg).
        points: (x, y) in data units.
        names: one per point.
        size: font size in points.
        avoid: other text in the axes that shall stay readable.
        directions: where a label may go, seen from its point, in degrees; earlier ones are preferred.
    """
    from matplotlib.patheffects import withStroke

    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.canvas.draw()  # the transforms are final only after a draw
    scale = figure.dpi / 72
    pixels = axes.transData.transform(list(points))
    frame = axes.get_window_extent()
    taken = [_around(x, y, 4.5 * scale) for x, y in pixels] + [text.get_window_extent() for text in avoid]
    labels = []
    for index in sorted(range(len(points)), key=lambda i: (-pixels[i][1], pixels[i][0])):
        label = axes.annotate(
            names[index], points[index], (0, 0), textcoords="offset points", fontsize=size, annotation_clip=False,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )  # fmt: skip
        best = (math.inf, 0, 0, taken[index])
        for distance in DISTANCES:
            for degrees in directions:
                _move(label, distance, degrees)
                box = label.get_window_extent().padded(1.5 * scale)
                cost = sum(_overlap(box, other) for other in taken) + 10 * _outside(box, frame)
                if cost < best[0]:
                    best = (cost, distance, degrees, box)
            if best[0] == 0:
                break
        _, distance, degrees, box = best
        end = _move(label, distance, degrees)
        if distance > DISTANCES[0]:
            arrow = {"arrowstyle": "-", "color": "0.5", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
            axes.annotate("", points[index], end, textcoords="offset points", arrowprops=arrow)
        taken.append(box)
        labels.append(label)
    return labels


def _move(label: Annotation, distance: float, degrees: float) -> tuple[float, float]:
    """Puts the label at a distance and direction from its point, aligned away from it; the offset in points."""
    across, up = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    label.set_position((distance * across, distance * up))
    label.set_horizontalalignment("left" if across > 0.3 else "right" if across < -0.3 else "center")
    label.set_verticalalignment("bottom" if up > 0.6 else "top" if up < -0.6 else "center")
    return distance * across, distance * up


def _around(x: float, y: float, radius: float) -> Bbox:
    from matplotlib.transforms import Bbox

    return Bbox([[x - radius, y - radius], [x + radius, y + radius]])


def _overlap(one: Bbox, other: Bbox) -> float:
    """Common area in pixels."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return width * height if width > 0 and height > 0 else 0.0


def _outside(box: Bbox, frame: Bbox) -> float:
    """Area of the box outside of the frame."""
    return box.width * box.height - _overlap(box, frame)
