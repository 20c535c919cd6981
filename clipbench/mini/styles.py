"""Styles: what a picture has besides its content.

Pretraining shows one mild neutral style. Every benchmark card has a style of its own, the domain shift of its
dataset: fixed effects with a little variation from image to image, made weaker or stronger by one factor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from clipbench.mini.shapes import CANVAS, SIZE, Array, Colour, X, Y, box, capsule, disc, paint

UNIFORMS = 64


@dataclass(frozen=True)
class Style:
    """The effects of one style, in the order in which they are applied.

    Attributes:
        clutter: number of discs and lines behind the content.
        clutter_colour: ``any``, ``green`` or ``white``.
        jitter: largest change of a colour channel of the content.
        edge: darkening along edges.
        hue: rotation of the hue in degrees.
        desaturate: share of gray.
        tint: gain of each channel.
        blur: weight of the neighbours in a 3-tap blur.
        motion: weight of a horizontal 5-tap blur.
        pixelate: 2 for blocks of 2 x 2 pixels.
        weave: height of an additive sine.
        weave_rate: its rate in radians per unit.
        vignette: darkening of the corners.
        contrast: gain around mid gray.
        brightness: offset.
        occluder: half width of a gray square, 0 for none.
        noise: standard deviation of noise.
        contrast_spread, brightness_spread: variation from image to image.
        neutral: whether contrast, brightness, noise and blur are drawn per image from the pretraining range.
    """

    clutter: float = 0.0
    clutter_colour: str = "any"
    jitter: float = 0.1
    edge: float = 0.0
    hue: float = 0.0
    desaturate: float = 0.0
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    blur: float = 0.0
    motion: float = 0.0
    pixelate: int = 1
    weave: float = 0.0
    weave_rate: float = 0.0
    vignette: float = 0.0
    contrast: float = 1.0
    brightness: float = 0.0
    occluder: float = 0.0
    noise: float = 0.0
    contrast_spread: float = 0.1
    brightness_spread: float = 0.06
    neutral: bool = False

    @classmethod
    def from_card(cls, effects: dict[str, object]) -> Style:
        """A style from the ``style`` mapping of a card.

        Raises:
            ValueError: an effect that does not exist.
        """
        names = {field.name for field in fields(cls)}
        unknown = sorted(set(effects) - names)
        if unknown:
            raise ValueError(f"unknown style effect {unknown[0]!r}; there are {', '.join(sorted(names))}")
        tint = effects.get("tint", (1.0, 1.0, 1.0))
        return cls(**{**effects, "tint": tuple(tint)})  # type: ignore[arg-type]

    def scaled(self, strength: float) -> Style:
        """The same style, weaker (strength below 1) or stronger."""
        r, g, b = (1 + strength * (gain - 1) for gain in self.tint)
        return replace(
            self,
            clutter=self.clutter * strength,
            edge=self.edge * strength,
            hue=self.hue * strength,
            tint=(r, g, b),
            blur=self.blur * strength,
            weave=self.weave * strength,
            vignette=self.vignette * strength,
            contrast=max(0.15, 1 + strength * (self.contrast - 1)),
            brightness=self.brightness * strength,
            occluder=self.occluder * strength,
            noise=self.noise * strength,
        )


NEUTRAL = Style(jitter=0.06, neutral=True)


def background(u: Sequence[float], style: Style) -> Array:
    """A two-colour gradient with the style's clutter on it; knows nothing of the class.

    Args:
        u: ``UNIFORMS`` numbers in [0, 1).
        style: gives number and colour of the clutter.

    Returns:
        (3, 48, 48) float32 canvas.
    """
    gain = 0.35 if u[0] < 0.25 else 1.0
    angle = 2 * math.pi * u[1]
    t = np.float32(0.5) + np.float32(0.35 * math.cos(angle)) * X + np.float32(0.35 * math.sin(angle)) * Y
    canvas = np.empty((3, SIZE, SIZE), np.float32)
    for i in range(3):
        # Half way to gray: backgrounds are less saturated than things.
        low, high = gain * (0.25 + 0.5 * u[2 + i]), gain * (0.25 + 0.5 * u[5 + i])
        canvas[i] = np.float32(low) + np.float32(high - low) * t
    for i in range(min(int(style.clutter + 0.5), 6)):
        s = u[8 + 9 * i : 17 + 9 * i]
        x, y = 2 * s[0] - 1, 2 * s[1] - 1
        if s[2] < 0.5:
            d = disc(CANVAS, x, y, 0.1 + 0.2 * s[3])
        else:
            turn = math.pi * s[3]
            dx, dy = 0.7 * math.cos(turn), 0.7 * math.sin(turn)
            d = capsule(CANVAS, x - dx, y - dy, x + dx, y + dy, 0.05)
        paint(canvas, CANVAS, d, _clutter_colour(style.clutter_colour, s[4:7]), 0.55)
    return canvas


def _clutter_colour(name: str, s: Sequence[float]) -> Colour:
    if name == "green":
        return (0.1 + 0.3 * s[0], 0.4 + 0.4 * s[1], 0.1 + 0.2 * s[2])
    if name == "white":
        tone = 0.85 + 0.13 * s[0]
        return (tone, tone, tone)
    return (s[0], s[1], s[2])


def apply(canvas: Array, style: Style, u: Sequence[float], noise: Array) -> npt.NDArray[np.uint8]:
    """Turn a finished canvas into the picture that is stored.

    Args:
        canvas: (3, 48, 48) float32, may be changed.
        style: effects, already scaled.
        u: ``UNIFORMS`` numbers in [0, 1).
        noise: (3, 48, 48) float32 of mean 0 and standard deviation 1.

    Returns:
        (48, 48, 3) uint8.
    """
    if style.neutral:
        style = replace(
            style, blur=0.4 * u[0], noise=0.04 * u[1], contrast=0.85 + 0.27 * u[2], brightness=0.16 * u[3] - 0.08
        )
    else:
        contrast = style.contrast * (1 + style.contrast_spread * (2 * u[2] - 1))
        brightness = style.brightness + style.brightness_spread * (2 * u[3] - 1)
        style = replace(style, contrast=contrast, brightness=brightness)
    if style.edge:
        canvas = canvas * (1 - np.clip(style.edge * 2 * _edges(canvas), 0, 0.9))
    canvas = _recolour(canvas, style)
    if style.blur:
        canvas = _blur(canvas, min(style.blur, 1.0))
    if style.motion:
        canvas = _motion(canvas, style.motion)
    if style.pixelate == 2:
        canvas = canvas.reshape(3, SIZE // 2, 2, SIZE // 2, 2).mean((2, 4)).repeat(2, 1).repeat(2, 2)
    if style.weave:
        wave = np.sin(np.float32(style.weave_rate) * (X + np.float32(0.6) * Y) + np.float32(2 * math.pi * u[4]))
        canvas = canvas + np.float32(style.weave) * wave
    if style.vignette:
        canvas = canvas * (1 - np.clip(np.float32(0.5 * style.vignette) * (X**2 + Y**2), 0, 0.95))
    canvas = (canvas - np.float32(0.5)) * np.float32(style.contrast) + np.float32(0.5 + style.brightness)
    if style.occluder:
        x, y, h = 1.6 * u[5] - 0.8, 1.6 * u[6] - 0.8, style.occluder
        paint(canvas, CANVAS, box(CANVAS, x, y, h, h), (0.5, 0.5, 0.5))
    canvas = canvas + np.float32(style.noise) * noise
    out = np.rint(np.clip(canvas, 0, 1) * np.float32(255)).astype(np.uint8)
    return np.ascontiguousarray(out.transpose(1, 2, 0))


def _recolour(canvas: Array, style: Style) -> Array:
    """Hue rotation, desaturation and tint are one matrix on the channels."""
    if not style.hue and not style.desaturate and style.tint == (1.0, 1.0, 1.0):
        return canvas
    c, s, k = math.cos(math.radians(style.hue)), math.sin(math.radians(style.hue)), 1 / 3
    near, after, before = c + k * (1 - c), k * (1 - c) - math.sqrt(k) * s, k * (1 - c) + math.sqrt(k) * s
    turn = ((near, after, before), (before, near, after), (after, before, near))
    gray = style.desaturate
    out = np.empty_like(canvas)
    for i, row in enumerate(turn):
        # (1 - gray) * row + gray * mean of the channels, then the gain
        weights = [style.tint[i] * ((1 - gray) * weight + gray * k) for weight in row]
        out[i] = sum(np.float32(w) * channel for w, channel in zip(weights, canvas, strict=True))
    return out


def _neighbours(canvas: Array, axis: int, step: int = 1) -> tuple[Array, Array]:
    index = np.arange(SIZE)
    back, front = np.maximum(index - step, 0), np.minimum(index + step, SIZE - 1)
    return canvas.take(back, axis), canvas.take(front, axis)


def _blur(canvas: Array, weight: float) -> Array:
    for axis in (1, 2):
        a, b = _neighbours(canvas, axis)
        canvas = np.float32(1 - 2 * weight / 3) * canvas + np.float32(weight / 3) * (a + b)
    return canvas


def _motion(canvas: Array, weight: float) -> Array:
    (a, b), (c, d) = _neighbours(canvas, 2), _neighbours(canvas, 2, 2)
    return np.float32(1 - weight) * canvas + np.float32(weight / 5) * (canvas + a + b + c + d)


def _edges(canvas: Array) -> Array:
    gray = canvas.mean(0, keepdims=True)
    (a, b), (c, d) = _neighbours(gray, 1), _neighbours(gray, 2)
    return np.abs(b - a) + np.abs(d - c)


__all__ = ["NEUTRAL", "UNIFORMS", "Style", "apply", "background"]
