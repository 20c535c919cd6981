"""The outcome of a study: a table for each axis around its default (CSV, Markdown, LaTeX, text), and its figures."""

from __future__ import annotations

import dataclasses
import itertools
import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from clipbench.errors import RecordError
from clipbench.records.store import Record, RecordStore, write_text
from clipbench.report.aggregate import AVERAGE, COLUMNS, SPREADS, aggregate, grouped, rows_of, score_of
from clipbench.report.axes_figure import Panel, accuracy_over_axes
from clipbench.report.cells import Row, cells_of
from clipbench.report.cost_figure import canvas, draw_costs
from clipbench.report.drawing import save_figure
from clipbench.report.escaping import figure_text
from clipbench.report.labels import place_labels
from clipbench.report.layout import Section
from clipbench.report.leaderboard import left_out, print_files, written
from clipbench.report.select import Planned, select
from clipbench.report.shots_figure import NAME, learning_curves
from clipbench.report.study_tables import BESIDE, scope_of, study_sections
from clipbench.report.tables import csv, latex, markdown, terminal

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console

    from clipbench.recipes.studies import Axis, Study

OWN = ["study", "axis", "value", "is_default", "h_vs_default", "h_vs_zero_shot", "gain_per_kb"]


@dataclasses.dataclass(frozen=True)
class StudyBoard:
    """What was written.

    Attributes:
        frame: tidy, one row per axis, value and dataset; columns `OWN` and those of a leaderboard. `h_vs_default` and
            `h_vs_zero_shot` are differences of H (of accuracy where nothing is novel), `gain_per_kb` the latter for
            each 1,000 stored bytes.
        sections: its tables.
        folder: where the files are.
        files: by name.
        unwritten: why the first of those that are not there could not be written.
    """

    frame: pd.DataFrame
    sections: list[Section]
    folder: Path
    files: dict[str, Path]
    unwritten: RecordError | None = None

    def print(self, console: Console) -> None:
        """Prints the tables, the notes and where the files are.

        Raises:
            RecordError: a file could not be written; all else is printed before.
        """
        first, *others = (dataclasses.replace(section, details=[]) for section in self.sections)
        short = [first, *(dataclasses.replace(section, caption="") for section in others)]
        for shown in terminal(short, self.frame.attrs["notes"], console.width):
            console.print(shown)
        print_files(console, self.folder, [*self.files], self.unwritten)


def write_study(
    study: Study, records: Path, folder: Path, expected: Iterable[Planned], suite: Sequence[str] = (), note: str = ""
) -> StudyBoard:
    """Writes `study.csv`, `.md`, `.tex` and the figures that the study asks for.

    Args:
        study: what was run.
        records: the run folder with its records.
        folder: where the files go.
        expected: the planned cells, see `load_frame`; at least one.
        suite: all datasets of the suite.
        note: what a table of this suite must say about itself.

    Returns:
        What is to be shown, and the files; also where some could not be written.

    Raises:
        RecordError: there is no record of it.
    """
    frame = study_frame(study, records, expected)
    scope = scope_of(study, len([name for name in suite if name not in study.trained or name in study.datasets]))
    tables = study_sections(study, frame, scope, note)
    notes = frame.attrs["notes"]
    head = [study.title, study.question]
    texts = {
        "study.csv": csv(frame, [*OWN, *COLUMNS]), "study.md": markdown(tables, notes, head),
        "study.tex": latex(tables, notes),
    }  # fmt: skip

    def save_text(name: str) -> dict[str, Path]:
        return {name: write_text(folder / name, texts[name])}

    def save_drawn(name: str, drawn: Figure) -> dict[str, Path]:
        return {path.name: path for path in save_figure(drawn, folder / name).values()}

    parts: list[Callable[[], dict[str, Path]]] = [partial(save_text, name) for name in texts]
    parts += [partial(save_drawn, name, drawn) for name, drawn in study_figures(study, frame, scope).items()]
    files, unwritten = written(parts)
    return StudyBoard(frame, tables, folder, files, unwritten)


def study_frame(study: Study, records: Path, expected: Iterable[Planned]) -> pd.DataFrame:
    """The rows of every axis; `attrs` has `notes`, and `test_images` by dataset: images of each split.

    The default stands on every axis that is varied around it, and once more among the rows `beside`.

    Raises:
        RecordError: there is no record of the study.
    """
    labels = [variant.label for variant in study.variants]
    planned = list(expected)
    scan = RecordStore(records).scan()
    mine = [record for record in scan.records if _belongs(record, study, labels)]
    if not mine:
        raise RecordError(f"there is no record of study {study.name} in {records}")
    chosen = select(mine, [some for some in planned if some.cell.recipe in labels], apart=False)
    there = {
        (cell.recipe, cell.dataset, cell.seed, cell.shots)
        for cell in [*(record.cell for record in chosen.records), *chosen.missing]
    }
    like = mine[0].cell
    absent = [
        dataclasses.replace(like, recipe=label, dataset=dataset, seed=seed, shots=shots)
        for label, dataset, seed, shots in itertools.product(labels, study.trained, study.seeds, study.shots)
        if (label, dataset, seed, shots) not in there
    ]
    board = aggregate(cells_of(chosen.records), [*chosen.missing, *absent], {like.suite: study.datasets})
    by_shots = grouped(rows_of(board), ["shots"])
    placed = [
        row for shots in study.shots
        for row in _placed(study, {(row["recipe"], row["dataset"]): row for row in by_shots[(shots,)]})
    ]  # fmt: skip
    frame = pd.DataFrame(placed, columns=[*OWN, *COLUMNS, *SPREADS])
    frame.attrs["notes"] = [*chosen.notes, *left_out(scan.problems)]
    frame.attrs["test_images"] = {
        record.cell.dataset: {name: split["total"] for name, split in record.splits.items()}
        for record in chosen.records
    }
    return frame


def _belongs(record: Record, study: Study, labels: Sequence[str]) -> bool:
    cell = record.cell
    return (
        cell.recipe in labels and cell.dataset in study.trained and cell.seed in study.seeds
        and cell.shots in study.shots
    )  # fmt: skip


def _placed(study: Study, rows: dict[tuple[str, str], Row]) -> list[Row]:
    """Each row at its places: beside, and on the axes."""
    zero_shot = next((variant.label for variant in study.variants if variant.recipe == "zero_shot"), "")
    centres = list(dict.fromkeys([study.default.label, *(axis.centre for axis in study.axes)]))
    places = [(BESIDE, label, label, centres[0]) for label in dict.fromkeys([*centres, *study.references])]
    places += [(axis.name, value, label, axis.centre) for axis in study.axes for value, label in axis.points.items()]
    placed = []
    for axis, value, label, centre in places:
        for dataset in [*study.datasets, AVERAGE]:
            row = rows[label, dataset]
            gain = _score(row) - _score(rows[zero_shot, dataset]) if zero_shot else math.nan
            stored = row["stored_bytes"]
            own = {
                "study": study.name, "axis": axis, "value": value, "is_default": label == centre,
                "h_vs_default": _score(row) - _score(rows[centre, dataset]), "h_vs_zero_shot": gain,
                "gain_per_kb": gain / stored * 1000 if stored else math.nan,
            }  # fmt: skip
            placed.append(own | row)
    return placed


def _score(row: Row) -> float:
    """H, or accuracy where nothing is novel."""
    return score_of(row)


def study_figures(study: Study, frame: pd.DataFrame, scope: str) -> dict[str, Figure]:
    """The figures that the study asks for, by file name without ending; of several numbers of shots at the most.

    Then learning curves stand beside them.
    """
    rows = [row for row in rows_of(frame) if row["shots"] == study.shots[-1]]
    scope += f" Drawn at {study.shots[-1]} shots." if len(study.shots) > 1 else ""
    averages: dict[str, Row] = {row["recipe"]: row for row in rows if row["dataset"] == AVERAGE}
    title = f"{figure_text(study.title)}\n{textwrap.fill(figure_text(scope), 120)}"
    drawn: dict[str, Figure] = {}
    for wanted in study.figures:
        if wanted["kind"] == "axes":
            panels = [_panel(axis) for axis in study.axes]
            zero_shot = next((variant.label for variant in study.variants if variant.recipe == "zero_shot"), "")
            drawn["axes"] = accuracy_over_axes(panels, averages, title, zero_shot)
        else:
            x: Any = wanted.get("x", "trained_parameters")
            figure, (axes,) = canvas(1, len(averages))
            axes.set_title(title, fontsize=8)
            groups = {axis.name: list(axis.points.values()) for axis in study.axes} if len(study.axes) > 1 else None
            joined = [axis.name for axis in study.axes if axis.numeric]
            place_labels(figure, draw_costs(axes, list(averages.values()), x, groups=groups, joined=joined))
            drawn[f"accuracy_vs_{x}"] = figure
    curves = learning_curves(frame)
    return drawn | ({NAME: curves} if curves is not None else {})


def _panel(axis: Axis) -> Panel:
    return Panel(axis.name, list(axis.points), list(axis.points.values()), axis.centre, axis.numeric)
