"""Numbers as tables print them: percent, sizes, times, and the columns of costs."""

from __future__ import annotations

import math
from collections.abc import Callable

from clipbench.report.escaping import DASH


def percent(value: float) -> str:
    """Two decimals, or a dash."""
    return DASH if math.isnan(value) else f"{value:.2f}"


def _unless_nan(form: Callable[[float], str]) -> Callable[[float], str]:
    return lambda value: DASH if math.isnan(value) else form(value)


def _bytes(value: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} B"


def _seconds(value: float) -> str:
    return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s" if value < 1000 else f"{value / 60:.0f} min"


COSTS: list[tuple[str, str, Callable[[float], str]]] = [
    ("trained_parameters", "Trained", _unless_nan(lambda value: f"{value:,.0f}")),
    ("trained_parameters_end", "At end", _unless_nan(lambda value: f"{value:,.0f}")),
    ("share", "Share %", _unless_nan(lambda value: f"{value:.3g}")),
    ("stored_bytes", "Stored", _unless_nan(_bytes)),
    ("seconds_per_step", "Step", _unless_nan(_seconds)),
    ("train_seconds", "Fit", _unless_nan(_seconds)),
    ("peak_bytes", "Peak", _unless_nan(_bytes)),
    ("inference_overhead", "Overhead %", _unless_nan(lambda value: f"{round(100 * value):+d}")),
]
