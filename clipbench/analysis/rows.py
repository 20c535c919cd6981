"""Rows as CSV files, written whole or not at all, and read back only with the columns that are expected."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from clipbench.atomic import named_by, write_text


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> Path:
    """Write rows; what is not known (None, nan) is left empty.

    Raises:
        RecordError: the folder is read-only or full.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: "" if value is None or value != value else value for key, value in row.items()})
    with named_by("--out"):
        return write_text(path, text.getvalue())


def read_rows(path: Path, columns: Sequence[str]) -> list[dict[str, Any]] | None:
    """The rows of a file; None where it is missing, damaged or of other columns."""
    try:
        frame = pd.read_csv(path)
    except (OSError, ValueError, UnicodeDecodeError):
        return None
    if list(frame.columns) != list(columns) or frame.empty:
        return None
    return [{str(name): value for name, value in row.items()} for row in _typed(frame).to_dict("records")]


def framed(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a frame; words that are not known are empty, numbers nan."""
    return _typed(pd.DataFrame(list(rows)))


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    for name in frame.columns:
        if name in ("tower", "dataset", "recipe", "backbone"):
            frame[name] = frame[name].fillna("").astype(str)
        elif name == "block":
            frame[name] = pd.to_numeric(frame[name]).astype("Int64")
    return frame
