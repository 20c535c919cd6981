"""Fits with the recorder on: one CSV file per cell, kept, so that a second call does only what is missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
from rich.console import Console

from clipbench.analysis.recorder import COLUMNS, ChangeRecorder
from clipbench.analysis.rows import read_rows, write_rows
from clipbench.bench.build import build
from clipbench.bench.grid import duration
from clipbench.bench.outcomes import check_finite
from clipbench.bench.plan import Plan, PlannedCell
from clipbench.bench.progress import EpochLines, Say
from clipbench.bench.run import run_cell
from clipbench.bench.stop import StopSignal, interruptible
from clipbench.errors import ClipbenchError, ConfigError, MethodError

Rows = list[dict[str, Any]]
IDENTITY = ("cell", "recipe", "backbone", "shots")
"""Columns that say which fit a row is of, in front of those of the recorder."""


def stem(planned: PlannedCell) -> str:
    """Name of a cell's files, the same as of its record and learned weights."""
    return f"{planned.cell.name}-{planned.key[:12]}"


def identity(planned: PlannedCell) -> dict[str, Any]:
    """The identity columns of a cell."""
    cell = planned.cell
    return {"cell": stem(planned), "recipe": cell.recipe, "backbone": cell.backbone, "shots": cell.shots}


def recorded_cells(plan: Plan, folder: Path, every: int, console: Console) -> Iterator[tuple[PlannedCell, Rows | None]]:
    """Every asked cell with its rows, or None where its fit failed; one line of progress for each.

    Args:
        plan: the grid; cells that others start from are run as the bench runs them.
        folder: where the files of the cells are kept.
        every: steps between two records.
        console: where the lines go.

    Raises:
        ConfigError: a recipe that trains nothing step by step.
        KeyboardInterrupt: the user stopped; finished cells are kept.
    """
    asked = {recipe.name for recipe in plan.request.recipes}

    def fit(planned: PlannedCell, say: Say) -> Rows | None:
        if planned.cell.recipe not in asked:
            record = run_cell(planned, plan.folder, say, wait_seconds=24 * 3600).record
            if record is None or not record.ok:
                raise MethodError(f"{planned.cell}, which others start from: {record.error if record else 'not run'}")
            return None
        path = folder / f"{stem(planned)}-every{every}.csv"
        rows = read_rows(path, COLUMNS)
        if rows is None:
            rows = fit_recorded(planned, every, say)
            write_rows(path, rows, COLUMNS)
        return rows

    for planned, rows in with_lines(plan.cells, fit, console):
        if planned.cell.recipe in asked:
            yield planned, rows


def with_lines(
    cells: list[PlannedCell], work: Callable[[PlannedCell, Say], Rows | None], console: Console
) -> Iterator[tuple[PlannedCell, Rows | None]]:
    """Work on one cell after the other, a line with the time left for each; None where it failed.

    Raises:
        ConfigError: a wrong call; it would fail for every cell.
        KeyboardInterrupt: the user stopped.
    """

    def say(text: str) -> None:
        console.print(f"      {text}", highlight=False, markup=False)

    start = time.perf_counter()
    with StopSignal():
        for number, planned in enumerate(cells, start=1):
            begin = time.perf_counter()
            try:
                rows, end = work(planned, say), ""
            except ConfigError:
                raise
            except ClipbenchError as error:
                rows, end = None, f"  FAILED  {error}"
            now = time.perf_counter()
            left = duration((now - start) / number * (len(cells) - number))
            head = f"[{number:>{len(str(len(cells)))}}/{len(cells)}] {planned.cell}"
            line = f"{head}{end}" if end else f"{head:<52} {now - begin:6.1f} s  {left} left"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
            yield planned, rows


def fit_recorded(planned: PlannedCell, every: int, say: Say | None = None) -> Rows:
    """Fit one cell as the bench does, with a `ChangeRecorder`; returns its rows.

    Raises:
        ConfigError: the method trains nothing step by step.
        MethodError: the fit went wrong.
    """
    cli = build(planned.config)
    method, trainer = cli.model, cli.trainer
    recorder = ChangeRecorder(every, path=None)
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    callbacks.append(recorder)
    if say is not None:
        callbacks.append(EpochLines(say))
    method.setup(task=cli.datamodule.task, train_seed=cli.datamodule.train_seed)
    if not method.trainable or trainer.max_epochs == 0:
        raise ConfigError(f"recipe '{planned.cell.recipe}' trains nothing step by step: there is nothing to record")
    interruptible(trainer, lambda: trainer.fit(method, datamodule=cli.datamodule))
    check_finite(method)
    rows = recorder.rows()
    if not any(row["step"] for row in rows):
        raise ConfigError(f"recipe '{planned.cell.recipe}' is solved without steps; ask for its --weights")
    for row in rows:
        row["dataset"] = planned.cell.dataset
    return rows
