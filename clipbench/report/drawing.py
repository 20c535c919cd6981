"""A figure that belongs to no window, and how it becomes files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clipbench.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float, dpi: int = 150) -> Figure:
    """An empty figure with constrained layout that can be drawn (Agg).

    Args:
        width: in inches.
        height: in inches.
        dpi: pixels an inch.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(drawn)
    return drawn


def save_figure(drawn: Figure, path: Path) -> dict[str, Path]:
    """Writes a figure as PNG and PDF, each whole or not at all; the same figure gives the same bytes.

    Args:
        drawn: the figure.
        path: without ending.

    Returns:
        By ending, the files.

    Raises:
        RecordError: the folder is read-only or full.
    """
    files = {}
    for ending, date in (("png", {}), ("pdf", {"CreationDate": None})):
        files[ending] = path.with_name(f"{path.name}.{ending}")
        with replacing(files[ending]) as temporary:
            drawn.savefig(temporary, format=ending, metadata=date)
    return files
