"""How a study is run: its variants are one bench, in a folder of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from clipbench.bench.grid import run_bench
from clipbench.bench.plan import Plan
from clipbench.printable import say
from clipbench.recipes.request import Request
from clipbench.recipes.studies import Study


def run_study(
    study: Study,
    request: Request,
    results: Path,
    finish: Callable[[Plan, Console], None],
    jobs: int | None = None,
    dry_run: bool = False,
) -> int:
    """Run what is missing of a study.

    Args:
        study: what to run.
        request: its variants or some of them (`Study.request`); the table shows the others as far as there are records.
        results: the folder of all runs.
        finish: what is done with the plan in the end: table and figures.
        jobs: worker processes; None chooses.
        dry_run: print the plan and stop.

    Returns:
        As `run_bench`.

    Raises:
        KeyboardInterrupt: Ctrl-C; finished records are kept.
    """
    console = Console()
    say(console, f"{study.title}\n{study.question}")
    console.print(f"stated for 2 cores: about {study.minutes:g} minutes in all", highlight=False)
    return run_bench(request, study.folder(results), finish, jobs, dry_run, console)
