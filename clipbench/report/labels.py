"""Names beside points: each label takes the nearest free place, so that no two collide and none leaves the axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation, Text
    from matplotlib.transforms import Bbox

DIRECTIONS = (0, 180, 45, 315, 135, 225, 90, 270, 22, 338, 158, 202)  # degrees; beside the point first
DISTANCES = (7, 12, 18, 26, 36, 48, 62, 80, 100, 124, 150, 180)  # typographic points
COVER = {"text": 1000.0, "mark": 3.0, "dot": 0.1}  # cost of a covered pixel
OUTSIDE = 1000.0  # cost of a pixel out of the axes
STRAY = 20.0  # cost of a pixel by which another mark is nearer to the name than its own
CROSS = {"text": 200.0, "mark": 40.0}  # cost of a sample of a leading line over one of these
REACH = 1.0  # cost of a typographic point of distance
SAMPLES = 10  # of a leading line


class Labels(NamedTuple):
    """The names of one panel.

    Attributes:
        axes: where they are written.
        points: (x, y) in data units of what is named.
        names: one for each point.
        size: font size in points.
        avoid: other text in the axes that stays readable.
        marks: (x, y) in data units of points whose names stand elsewhere.
        dots: (x, y) in data units of points without a name, which may be covered sooner than marks.
        directions: where a label may go, seen from its point, in degrees; earlier ones are preferred.
    """

    axes: Axes
    points: Sequence[tuple[float, float]]
    names: Sequence[str]
    size: float = 8
    avoid: Sequence[Text] = ()
    marks: Sequence[tuple[float, float]] = ()
    dots: Sequence[tuple[float, float]] = ()
    directions: Sequence[int] = DIRECTIONS


def place_labels(figure: Figure, panels: Sequence[Labels]) -> list[Annotation]:
    """Writes a name beside every point; a thin line leads to it where it had to move away.

    Deterministic: the same points give the same places. The place that costs least is used: near, free, and not nearer
    to another mark. Call it once, when all else is drawn: transforms are final only after a layout of the whole figure.

    Args:
        figure: a figure that can be drawn (Agg).
        panels: the names of each panel.
    """
    figure.draw_without_rendering()
    return [label for panel in panels if panel.points for label in _place(panel, figure.dpi / 72)]


def _place(panel: Labels, scale: float) -> list[Annotation]:
    """The labels of one panel; `scale` is pixels for each typographic point."""
    from matplotlib.patheffects import withStroke

    labels = [
        panel.axes.annotate(
            name, point, (0, 0), textcoords="offset points", fontsize=panel.size, annotation_clip=False,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )
        for name, point in zip(panel.names, panel.points, strict=True)
    ]  # fmt: skip
    pixels = _pixels(panel.axes, panel.points)
    room = _Room(panel, pixels, [label.get_window_extent() for label in labels], scale)
    orders = ((-pixels[:, 1], pixels[:, 0]), (pixels[:, 1], pixels[:, 0]), (-pixels[:, 0], pixels[:, 1]),
              (pixels[:, 0], pixels[:, 1]))  # fmt: skip
    tried = [
        room.arrange(sorted(range(len(pixels)), key=list(zip(*order, strict=True)).__getitem__)) for order in orders
    ]
    steps, _ = min(tried, key=lambda outcome: round(outcome[1], 6))
    for label, point, (distance, degrees) in zip(labels, panel.points, steps, strict=True):
        offset = _move(label, distance, degrees)
        if distance > DISTANCES[0]:
            arrow = {"arrowstyle": "-", "color": "0.5", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
            panel.axes.annotate("", point, offset, textcoords="offset points", arrowprops=arrow)
    return labels


class _Room:
    """The pixels of a panel, in which labels are arranged.

    Args:
        panel: what is to be named.
        pixels: where its points are, (N, 2).
        sizes: the box of each label, wherever it stands.
        scale: pixels for each typographic point.
    """

    def __init__(self, panel: Labels, pixels: np.ndarray, sizes: Sequence[Bbox], scale: float) -> None:
        import numpy as np

        marks, dots = (_pixels(panel.axes, points) for points in (panel.marks, panel.dots))
        centres = np.concatenate([pixels, marks])
        texts = np.array([text.get_window_extent().extents for text in panel.avoid]).reshape(-1, 4)
        frame = np.array([panel.axes.get_window_extent().extents])
        self.steps = [(distance, degrees) for distance in DISTANCES for degrees in panel.directions]
        self.boxes, self.lines, self.costs = list[np.ndarray](), list[np.ndarray](), list[np.ndarray]()
        for index, (point, size) in enumerate(zip(pixels, sizes, strict=True)):
            boxes = _candidates(point, size.width, size.height, self.steps, scale)
            lines = _leaders(point, self.steps, scale)
            apart = np.hypot(*(centres - point).T) > 9 * scale  # marks that do not overlap its own
            cost = REACH * np.array([distance for distance, _ in self.steps])
            cost += OUTSIDE * (_areas(boxes) - _overlap(boxes, frame)[:, 0])
            cost += COVER["mark"] * _overlap(boxes, _around(centres, 4.5 * scale)).sum(axis=1)
            cost += COVER["dot"] * _overlap(boxes, _around(dots, 2.5 * scale)).sum(axis=1)
            cost += CROSS["mark"] * _within(lines, _around(centres[apart], 4.5 * scale)).sum(axis=(1, 2))
            cost += STRAY * _stray(boxes, centres, index)
            self.boxes.append(boxes)
            self.lines.append(lines)
            self.costs.append(cost + self._conflict(boxes, lines, texts, np.empty((0, 2))))

    def arrange(self, order: Sequence[int]) -> tuple[list[tuple[float, float]], float]:
        """Each label where it costs least beside those that stand already, then once more with all in their places.

        Returns:
            Distance and direction of each label (in the order of the points), and what all cost together.
        """
        import numpy as np

        chosen, costs = dict[int, int](), dict[int, float]()
        for index in [*order] * 2:
            others = [(other, best) for other, best in chosen.items() if other != index]
            texts = np.array([self.boxes[other][best] for other, best in others]).reshape(-1, 4)
            lines = np.array([self.lines[other][best] for other, best in others]).reshape(-1, 2)
            cost = self.costs[index] + self._conflict(self.boxes[index], self.lines[index], texts, lines)
            best = chosen[index] = int(np.argmin(cost.round(6)))  # the first of equals
            costs[index] = float(cost[best])
        return [self.steps[chosen[index]] for index in range(len(order))], sum(costs.values())

    @staticmethod
    def _conflict(boxes: np.ndarray, lines: np.ndarray, texts: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Cost (K,) of candidate boxes and their lines against texts (N, 4) and samples (S, 2) of other lines."""
        crossed = _within(lines, texts).sum(axis=(1, 2)) + _within(others[None], boxes).sum(axis=(0, 1))
        return COVER["text"] * _overlap(boxes, texts).sum(axis=1) + CROSS["text"] * crossed


def _aligned(degrees: float) -> tuple[float, float, int, int]:
    """Direction as a unit vector, and on which side of the end a label lies: -1, 0 (centred) or 1 in x and in y."""
    across, up = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return across, up, (across > 0.3) - (across < -0.3), (up > 0.6) - (up < -0.6)


def _move(label: Annotation, distance: float, degrees: float) -> tuple[float, float]:
    """Puts the label at a distance and direction from its point, aligned away from it; the offset in points."""
    across, up, side, level = _aligned(degrees)
    label.set_position((distance * across, distance * up))
    label.set_horizontalalignment(("center", "left", "right")[side])
    label.set_verticalalignment(("center", "bottom", "top")[level])
    return distance * across, distance * up


def _candidates(
    point: np.ndarray, width: float, height: float, steps: Sequence[tuple[float, float]], scale: float
) -> np.ndarray:
    """Boxes (K, 4) in pixels, with a margin, of a label of that size where `_move` would put it."""
    import numpy as np

    boxes = []
    for distance, degrees in steps:
        across, up, side, level = _aligned(degrees)
        left = point[0] + scale * distance * across + (side - 1) / 2 * width
        low = point[1] + scale * distance * up + (level - 1) / 2 * height
        boxes.append((left, low, left + width, low + height))
    margin = 1.5 * scale
    return np.array(boxes) + np.array([-margin, -margin, margin, margin])


def _leaders(point: np.ndarray, steps: Sequence[tuple[float, float]], scale: float) -> np.ndarray:
    """Samples (K, S, 2) in pixels of the lines from a point to where its label would be."""
    import numpy as np

    ends = np.array([(distance * across, distance * up) for distance, (across, up, *_) in
                     ((distance, _aligned(degrees)) for distance, degrees in steps)])  # fmt: skip
    return point + scale * np.linspace(0, 1, SAMPLES)[:, None] * ends[:, None]


def _within(samples: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Whether each sample (K, S, 2) lies in each of the boxes (N, 4): (K, S, N)."""
    import numpy as np

    inner = samples[:, :, None]
    return np.all((inner >= boxes[:, :2]) & (inner <= boxes[:, 2:]), axis=3)


def _pixels(axes: Axes, points: Sequence[tuple[float, float]]) -> np.ndarray:
    """Data units to pixels, (N, 2)."""
    import numpy as np

    return axes.transData.transform(np.asarray(points, dtype=float).reshape(-1, 2))


def _around(centres: np.ndarray, radius: float) -> np.ndarray:
    """Square boxes (N, 4) around centres (N, 2)."""
    import numpy as np

    return np.concatenate([centres - radius, centres + radius], axis=1)


def _areas(boxes: np.ndarray) -> np.ndarray:
    """Areas (K,) of boxes (K, 4)."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _overlap(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Common areas (K, N) of boxes (K, 4) and (N, 4)."""
    import numpy as np

    low = np.maximum(some[:, None, :2], others[None, :, :2])
    high = np.minimum(some[:, None, 2:], others[None, :, 2:])
    return np.prod(np.clip(high - low, 0, None), axis=2)


def _stray(boxes: np.ndarray, centres: np.ndarray, own: int) -> np.ndarray:
    """By how many pixels (K,) the nearest other centre is nearer to a box than its own one."""
    import numpy as np

    nearest = np.clip(centres[None], boxes[:, None, :2], boxes[:, None, 2:])
    far = np.hypot(*np.moveaxis(nearest - centres[None], 2, 0))
    others = np.delete(far, own, axis=1)
    return np.clip(far[:, own] - others.min(axis=1, initial=np.inf), 0, None)
