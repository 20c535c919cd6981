"""H, the harmonic mean of base and novel accuracy: the one number of base-to-novel tables."""

from __future__ import annotations

import math


def harmonic_mean(base: float, novel: float) -> float:
    """H = 2 * base * novel / (base + novel).

    Args:
        base: accuracy on the base classes, not negative.
        novel: accuracy on the novel classes, in the same unit.

    Returns:
        H in that unit, between the two and nearer to the smaller; 0 when one of them is 0; NaN when one of them is NaN.

    Raises:
        ValueError: an accuracy is negative.

    Source:
        The formula of the base-to-novel literature; H of a dataset is taken of seed means, H of the average row of the
        two averages (`docs`: Numbers).

    Example:
        >>> round(harmonic_mean(69.34, 74.22), 2)
        71.7
    """
    if math.isnan(base) or math.isnan(novel):
        return math.nan
    if base < 0 or novel < 0:
        raise ValueError(f"an accuracy is negative: base {base}, novel {novel}")
    if base == 0 or novel == 0:
        return 0.0
    h = 2 * base * novel / (base + novel)
    return min(max(h, min(base, novel)), max(base, novel))  # rounding may step over a bound by one unit
