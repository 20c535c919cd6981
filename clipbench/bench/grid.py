"""The bench: plan a grid, hand its undone cells to a launcher, write the leaderboard of whatever records there are."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from clipbench.bench.launchers import Inline, default_jobs, leave_worker_that_begins_anew
from clipbench.bench.plan import Plan, PlannedCell, estimate, make_plan
from clipbench.bench.planned import NO_WEIGHTS, absent_weights
from clipbench.bench.run import Outcome, run_cell
from clipbench.bench.stop import StopSignal
from clipbench.bench.trainer import on_cuda
from clipbench.errors import DataError
from clipbench.printable import say
from clipbench.protocols.base import protocol
from clipbench.recipes.request import Request
from clipbench.records.store import FAILED, NO_RECORD, Record, RecordStore


@dataclass
class Progress:
    """One line per finished cell, with the time left.

    Attributes:
        console: where lines go.
        total: number of cells to run.
        stop: whether the user wants to stop.
        several_shots: whether cells differ by their number of shots, which a line then says.
    """

    console: Console
    total: int
    stop: StopSignal
    several_shots: bool = False

    def __post_init__(self) -> None:
        self.start = time.perf_counter()
        self.finished = 0
        self.failed = 0
        self.failures: set[str] = set()
        self.waiting: list[Outcome] = []

    def say(self, text: str) -> None:
        """A line of progress inside a cell."""
        say(self.console, f"      {text}")

    def done(self, outcome: Outcome) -> None:
        """The line of a finished cell.

        Raises:
            KeyboardInterrupt: the user asked to stop and the exception got lost on its way.
        """
        if outcome.record is None:
            self.waiting.append(outcome)
            return
        self._line(outcome.planned, outcome.record)
        if self.stop.asked:
            raise self.stop.exception()

    def _line(self, planned: PlannedCell, record: Record) -> None:
        self.finished += 1
        cell = planned.cell
        spent = time.perf_counter() - self.start
        left = spent / self.finished * (self.total - self.finished)
        shots = f" {cell.shots} shots" if self.several_shots else ""
        count = f"[{self.finished:>{len(str(self.total))}}/{self.total}]"
        head = f"{count} {cell.recipe} {cell.dataset}{shots} seed {cell.seed}"
        if not record.ok:
            self.failed += 1
            self.failures.add(planned.key)
            say(self.console, f"{head}  FAILED  {record.error}")
            return
        scores = "  ".join(f"{name} {accuracy:6.2f}" for name, accuracy in _scores(record).items())
        seconds = record.cost["total_seconds"]
        say(self.console, f"{head:<48} {scores}  {seconds:6.1f} s  {duration(left)} left")


def _scores(record: Record) -> dict[str, float]:
    """The accuracies of a line: of each split, or where there are many of the first and their mean over the others."""
    found = {name: record.accuracy(name) for name in record.splits}
    first, *others = found
    if len(found) < 3:
        return found
    return {first: found[first], f"mean of {len(others)} targets": sum(found[name] for name in others) / len(others)}


def run_bench(
    request: Request,
    results: Path,
    finish: Callable[[Plan, Console], None],
    jobs: int | None = None,
    dry_run: bool = False,
    console: Console | None = None,
) -> int:
    """Run what is missing of a request.

    Args:
        request: the grid.
        results: the folder of all runs.
        finish: what is done with the plan in the end: the leaderboard.
        jobs: worker processes; None chooses.
        dry_run: print the plan and an estimate, run nothing.
        console: where to print.

    Returns:
        0 when every cell of the request has a valid record in the end, 1 when cells failed or records are gone.

    Raises:
        KeyboardInterrupt: Ctrl-C; finished records are kept.
        ClipbenchError: a wrong call, or data or weights that are missing.
    """
    leave_worker_that_begins_anew()
    console = console or Console()
    plan = make_plan(request, results, dry_run)
    todo = plan.to_run
    say(console, headline(plan))
    seconds = estimate(plan)
    backbone = request.backbone or request.suite.backbone
    cuda = any(on_cuda(planned.resolved["trainer"]) for planned in todo)
    jobs = min(jobs or default_jobs(len(todo), cuda, backbone), max(1, len(todo)))
    if dry_run:
        if protocol(request.protocol).has_targets:
            say(console, f"  tested on: {', '.join(request.measured())}")
        for planned in plan.cells:
            state = "done" if planned.undone is None else f"to run: {planned.undone}"
            start = f", starts from {planned.start.cell.recipe} {planned.start.key[:12]}" if planned.start else ""
            key = planned.key[:12] if planned.undone != NO_WEIGHTS else "key unknown"
            line = f"  {planned.cell}  {key}  {state}{start}"
            say(console, line)
        known = "no estimate yet: no record of this recipe" if seconds is None else f"about {duration(seconds / jobs)}"
        processes = "1 process" if jobs == 1 else f"{jobs} processes"
        say(console, f"{len(todo)} of {counted(len(plan.cells), 'cell')} to run with {processes}, {known}")
        if plan.absent:
            raise DataError(absent_weights(plan.absent))
        return 0
    progress = Progress(console, len(todo), StopSignal(), bool(request.more_shots))
    if todo:
        RecordStore(plan.folder).check_writable()
        for line in repeated(todo):
            progress.say(line)
        launcher = Inline(jobs)
        try:
            with progress.stop:
                launcher.run(todo, plan.folder, progress.done, progress.say)
                for outcome in progress.waiting:
                    progress.say(f"{outcome.planned.cell} is being run by another bench; waiting for it")
                    progress.done(run_cell(outcome.planned, plan.folder, wait_seconds=24 * 3600))
        except KeyboardInterrupt:
            kept = progress.finished - progress.failed
            console.print(f"stopped; {kept} finished cells are kept, the same command goes on from here")
            raise
        console.print(
            f"{counted(progress.finished, 'cell')} in {duration(time.perf_counter() - progress.start)}", highlight=False
        )
    finish(plan, console)
    if progress.failed:
        console.print(f"{counted(progress.failed, 'cell')} failed: missing in the table, the same command tries again")
    gone = [] if not todo else _gone(plan, progress.failures)
    if gone:
        lost = f"{len(gone)} finished cells are gone from {plan.folder} (first: {gone[0]})"
        say(console, f"{lost}; the same command computes them again")
    return 1 if progress.failed or gone else 0


def repeated(todo: Sequence[PlannedCell], most: int = 10) -> list[str]:
    """A line for each cell that was computed before and is not any more, and why; for the first few."""
    lines = [
        f"{planned.cell} is computed again: {planned.undone}"
        for planned in todo
        if planned.undone not in (None, NO_RECORD) and not str(planned.undone).startswith(FAILED)
    ]
    return lines[:most] + ([f"and {len(lines) - most} more"] if len(lines) > most else [])


def _gone(plan: Plan, failures: set[str]) -> list[str]:
    """The cells that should have a record by now and have none, with the reason; those that failed have said theirs."""
    store = RecordStore(plan.folder)
    found = ((p.cell, store.why_undone(p.cell, p.key)) for p in plan.cells if p.key not in failures)
    return [f"{cell}: {why}" for cell, why in found if why is not None]


def headline(plan: Plan) -> str:
    """One line that says what the plan is."""
    request = plan.request
    recipes = ", ".join(recipe.name for recipe in request.recipes[:8]) + (", ..." if len(request.recipes) > 8 else "")
    several = f"{len(request.recipes)} recipes x " if len(request.recipes) > 1 else ""
    several += f"{len(request.all_shots)} numbers of shots x " if request.more_shots else ""
    datasets = len({planned.cell.dataset for planned in plan.cells})
    asked, others = len(plan.cells) - len(plan.others), {planned.cell.recipe for planned in plan.others}
    before = f" and {len(plan.others)} of {', '.join(sorted(others))} to start from" if others else ""
    done = len(plan.cells) - len(plan.to_run)
    targets = f" to {counted(len(request.measured()), 'dataset')}" if protocol(request.protocol).has_targets else ""
    shots = ", ".join(map(str, request.all_shots))
    shots += " shot" if shots == "1" else " shots"
    return (
        f"{recipes}: suite {request.suite.name}, {request.protocol}{targets}, {shots}, {several}"
        f"{counted(datasets, 'dataset')} x {counted(len(request.seeds), 'seed')} = {counted(asked, 'cell')}{before}, "
        f"{done} done already"
    )


def counted(number: int, noun: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def duration(seconds: float) -> str:
    """Seconds for people: `4 s`, `3 min 20 s`, `2 h 05 min`.

    Example:
        >>> duration(200)
        '3 min 20 s'
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
