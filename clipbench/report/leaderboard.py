"""The leaderboard of a run folder: records in; CSV, Markdown, LaTeX and figure out, each whole or not at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from clipbench.errors import RecordError
from clipbench.printable import say
from clipbench.records.store import Cell, RecordStore, Scan, write_text
from clipbench.report.aggregate import AVERAGE, ROW, aggregate, averages_of, label_of, rows_of
from clipbench.report.cells import cells_of
from clipbench.report.layout import is_counted, is_whole
from clipbench.report.select import Planned, select
from clipbench.report.tables import layout_of, render, terminal
from clipbench.resources import configs_dir

if TYPE_CHECKING:
    from rich.console import Console


@dataclasses.dataclass(frozen=True)
class Leaderboard:
    """What was written.

    Attributes:
        frame: the rows that are shown, see `aggregate.COLUMNS`; `frame.attrs["notes"]` says what is odd.
        folder: where the files are.
        files: by ending (`csv`, `md`, `tex`, `png`, `pdf`; `cost.png` and `cost.pdf` of accuracy against cost,
            `curves.png` and `curves.pdf` of accuracy over the shots).
        unwritten: why the first of those that are not there could not be written.
    """

    frame: pd.DataFrame
    folder: Path
    files: dict[str, Path]
    unwritten: RecordError | None = None

    @property
    def notes(self) -> list[str]:
        """Failed, left out and damaged, a sentence each."""
        return list(self.frame.attrs.get("notes", []))

    def print(self, console: Console) -> None:
        """Prints the tables, the notes and where the files are.

        Raises:
            RecordError: a file could not be written; all else is printed before.
        """
        for shown in terminal(*layout_of(self.frame), console.width):
            console.print(shown)
        print_files(console, self.folder, [path.name for path in self.files.values()], self.unwritten)


def print_files(console: Console, folder: Path, names: Sequence[str], unwritten: RecordError | None) -> None:
    """Prints where files are.

    Raises:
        RecordError: `unwritten`.
    """
    if names:
        say(console, f"{folder}: {', '.join(names)}")
    if unwritten is not None:
        raise unwritten


def suite_of(name: str) -> tuple[tuple[str, ...], str]:
    """Datasets in order and the note of a packaged suite; nothing for a suite that is not packaged."""
    path = configs_dir() / "suites" / f"{name}.yaml"
    if not path.is_file():
        return (), ""
    content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return tuple(map(str, content.get("datasets") or ())), " ".join(str(content.get("note", "")).split())


def load_frame(folder: Path | str, *arguments: Any, **more: Any) -> pd.DataFrame:
    """The leaderboard of the records in a run folder.

    Args:
        folder: `<results>/<suite>/<protocol>`.
        arguments: of `frame_of`.
        more: of `frame_of`.
    """
    return frame_of(RecordStore(folder).scan(), *arguments, **more)


def frame_of(
    scan: Scan,
    expected: Iterable[Planned] | None = None,
    datasets: Sequence[str] | None = None,
    note: str | None = None,
    over: Sequence[str] | None = None,
    of: Callable[[Cell], bool] = lambda cell: True,
    per_seed: bool = False,
    validation_free: bool = False,
) -> pd.DataFrame:
    """The leaderboard of records that have been read.

    Args:
        scan: the records of a run folder.
        expected: the cells of a plan (anything with `cell` and `key`): their records must have these keys, and those
            without one are shown as missing.
        datasets: the datasets of the suite in order; None takes those of the packaged suite, else those that occur.
        note: what tables of this suite say about themselves; None takes that of the packaged suite.
        over: the datasets that are shown and averaged over; None: all of the suite.
        of: which cells are wanted.
        per_seed: rows of one seed each, see `aggregate`.
        validation_free: only rows that say that they are.

    Returns:
        Columns as `aggregate.COLUMNS`, no rows without records; `attrs` has `notes` and `suite_notes`, for people.
    """
    chosen = select([record for record in scan.records if of(record.cell)], expected)
    suites = {cell.suite for cell in [*(record.cell for record in chosen.records), *chosen.missing]}
    packaged = {name: suite_of(name) for name in suites}
    listed = {name: datasets if datasets is not None else packaged[name][0] for name in suites}
    frame = aggregate(cells_of(chosen.records), chosen.missing, listed, over, per_seed)
    frame, others = only_validation_free(frame) if validation_free else (frame, [])
    dirty = sum(bool(record.data["environment"].get("dirty")) for record in chosen.records)
    changed = [f"{dirty} of {len(chosen.records)} cells ran from a checkout with uncommitted changes"] if dirty else []
    frame.attrs["notes"] = [*chosen.notes, *left_out(scan.problems), *changed, *others]
    frame.attrs["suite_notes"] = {name: packaged[name][1] if note is None else note for name in suites}
    return frame


def only_validation_free(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows of a leaderboard of which every cell says that it is validation-free, and a note that names the others.

    Args:
        frame: of `aggregate`.
    """
    of_row = [*ROW, *(["seed"] if "seed" in frame else [])]
    stated = frame["validation_free"].where(frame["dataset"] == AVERAGE, "true") == "true"
    kept = stated.groupby([frame[name] for name in of_row], dropna=False).transform("all") if len(frame) else stated
    others = list(dict.fromkeys(label_of(row) for row in averages_of(rows_of(frame[~kept]))))
    note = f"left out, since they are not validation-free or do not say it: {', '.join(others)}"
    return frame[kept].reset_index(drop=True), [note] if others else []


def partial_grid(frame: pd.DataFrame) -> list[str]:
    """What to write for averages where no row has all datasets; nothing where one has, or where there is no choice."""
    rows = rows_of(frame)
    if any(is_whole(row) for row in averages_of(rows)):
        return []
    there = dict.fromkeys(row["dataset"] for row in rows if is_counted(row) and row["cells"] and is_whole(row))
    return [f"no row is complete; averages over what is there: --datasets {','.join(there)}"] if there else []


def left_out(problems: Sequence[str], most: int = 3) -> list[str]:
    """One line for all files among the records that are none, the first few by name; none where there are none."""
    if not problems:
        return []
    more = f"; and {len(problems) - most} more" if len(problems) > most else ""
    count = f"{len(problems)} file{'s' * (len(problems) > 1)}"
    return [f"left out {count} among the records: {'; '.join(problems[:most])}{more}"]


def write_leaderboard(
    folder: Path | str,
    expected: Iterable[Planned] | None = None,
    datasets: Sequence[str] | None = None,
    note: str | None = None,
    over: Sequence[str] | None = None,
) -> Leaderboard:
    """Writes `leaderboard.csv`, `.md`, `.tex` and the figures `scatter` and `accuracy_vs_cost` (`.png`, `.pdf`).

    Where there are several numbers of shots, also `learning_curves`.

    The files average over the suite wherever some row is complete over it; what is shown averages over what was asked.

    Args:
        folder: the run folder, `<results>/<suite>/<protocol>`; the files go there.
        expected: see `load_frame`.
        datasets: see `load_frame`.
        note: see `load_frame`.
        over: see `load_frame`: the datasets asked for.

    Returns:
        What is to be shown, and the files; also where some could not be written.

    Raises:
        RecordError: the folder holds no record.
    """
    from clipbench.report.cost_figure import accuracy_vs_cost
    from clipbench.report.drawing import save_figure
    from clipbench.report.figures import figure
    from clipbench.report.shots_figure import NAME, learning_curves

    folder, planned, scan = Path(folder), list(expected or ()), RecordStore(folder).scan()
    frame = frame_of(scan, planned, datasets, note)
    if frame.empty:
        raise RecordError(f"there is no record in {folder}; run `make bench METHOD=clipfit` first")
    shown = frame_of(scan, planned, datasets, note, over) if over else frame
    whole = any(is_whole(row) for row in averages_of(rows_of(frame)))
    kept = frame if whole else shown

    def texts(ending: str) -> dict[str, Path]:
        return {ending: write_text(folder / f"leaderboard.{ending}", render(kept, ending))}

    def costs() -> dict[str, Path]:
        saved = save_figure(accuracy_vs_cost(kept), folder / "accuracy_vs_cost")
        return {f"cost.{ending}": path for ending, path in saved.items()}

    def curves() -> dict[str, Path]:
        drawn = learning_curves(kept)
        saved = save_figure(drawn, folder / NAME) if drawn is not None else {}
        return {f"curves.{ending}": path for ending, path in saved.items()}

    parts = [partial(texts, ending) for ending in ("csv", "md", "tex")]
    files, unwritten = written([*parts, lambda: save_figure(figure(kept), folder / "scatter"), costs, curves])
    return Leaderboard(shown, folder, files, unwritten)


def written(parts: Iterable[Callable[[], Mapping[str, Path]]]) -> tuple[dict[str, Path], RecordError | None]:
    """Writes files part by part: those that are there, and why the first one that is not could not be written."""
    files: dict[str, Path] = {}
    first: RecordError | None = None
    for part in parts:
        try:
            files |= part()
        except RecordError as error:
            first = first or error
    return files, first
