"""The brush: one canvas, one fixed vector of uniforms, and the colours, jittered.

Uniforms are read by slot, never in sequence, so that a value that needs more of them cannot shift what another one
reads.
"""

from __future__ import annotations

from collections.abc import Sequence

from clipbench.mini.shapes import RGB, Array, Colour, Frame, paint, pose

UNIFORMS = 96


class Brush:
    """Paints one image.

    Args:
        canvas: (3, 48, 48) float32, painted in place.
        uniforms: ``UNIFORMS`` numbers in [0, 1). Slots 0-4 are the pose, 5-7 the main colour, 8-10 and 11-13 further
            colours; 14 and up belong to the family.
        jitter: largest change of a colour channel.
    """

    def __init__(self, canvas: Array, uniforms: Sequence[float], jitter: float) -> None:
        self.canvas = canvas
        self.uniforms = uniforms
        self.jitter = jitter

    def u(self, slot: int, low: float = 0.0, high: float = 1.0) -> float:
        """The uniform of a slot, stretched to [low, high)."""
        return low + (high - low) * self.uniforms[slot]

    def pose(self, shift: float, small: float, large: float, angle: float) -> Frame:
        """Random pose: shift up to +-shift, scale in [small, large), rotation up to +-angle radians, mirrored half of
        the time."""
        return pose(
            self.u(0, -shift, shift),
            self.u(1, -shift, shift),
            self.u(2, small, large),
            self.u(3, -angle, angle),
            self.uniforms[4] < 0.5,
        )

    def colour(self, name: str, slot: int = 5) -> Colour:
        """A named colour with jitter; uses three slots."""
        return self.near(RGB[name], slot)

    def near(self, colour: Colour, slot: int) -> Colour:
        """A given colour with jitter; uses three slots."""
        r, g, b = (min(1.0, max(0.0, c + self.u(slot + i, -self.jitter, self.jitter))) for i, c in enumerate(colour))
        return (r, g, b)

    def any_colour(self, slot: int, low: float = 0.0, high: float = 1.0) -> Colour:
        """Any colour with channels in [low, high); uses three slots."""
        return (self.u(slot, low, high), self.u(slot + 1, low, high), self.u(slot + 2, low, high))

    def paint(self, frame: Frame, distance: Array, colour: Colour, alpha: float = 1.0) -> None:
        """Paint the inside of a shape."""
        paint(self.canvas, frame, distance, colour, alpha)
