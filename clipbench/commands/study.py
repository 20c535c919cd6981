"""`clipbench study`: run a named set of recipes, print its table, draw its figure."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from clipbench.atomic import named_by
from clipbench.commands.bench import add_places, add_run

if TYPE_CHECKING:
    from rich.console import Console

    from clipbench.bench.plan import Plan


def add_parser(commands: Any) -> None:
    """The words of the command."""
    parser = commands.add_parser("study", help="run a named set of recipes; print its table, draw its figure")
    parser.add_argument("name", help="a packaged study (clipbench list studies), or a YAML file")
    parser.add_argument("--variants", default="", help="some of its variants, separated by commas")
    add_places(parser)
    add_run(parser)
    parser.set_defaults(run=run)


@named_by("--results")
def run(options: argparse.Namespace) -> int:
    """Run what is missing, write table and figure; 1 when cells failed.

    Raises:
        ClipbenchError: a wrong call or study, or data that are missing.
    """
    from clipbench.recipes.request import requested_names
    from clipbench.recipes.studies import load_study

    study = load_study(options.name)
    request = study.request(requested_names(options.variants), options.root)
    from clipbench.bench.study import run_study
    from clipbench.resources import runs_dir

    results = options.results or runs_dir()

    def write(plan: Plan, console: Console) -> None:
        from clipbench.report.study import write_study

        suite = plan.request.suite
        folder = study.folder(results)
        write_study(study, plan.folder, folder, plan.cells, list(suite.datasets), suite.note).print(console)

    return run_study(study, request, results, write, options.jobs, options.dry_run)
