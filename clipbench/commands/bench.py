"""`clipbench bench`: run a grid of cells and print its leaderboard."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipbench.atomic import named_by
from clipbench.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from clipbench.bench.plan import Plan

SEEDS = "1,2,3"
OF_A_GRID: dict[str, Any] = {
    "suite": "mini", "shots": "16", "protocol": "base_to_novel", "backbone": None, "setting": "paper", "set": [],
    "config": [], "jobs": None,
}  # fmt: skip
"""Options that a record says by itself, with their defaults."""


def add_parser(commands: Any) -> None:
    """The words of the command."""
    parser = commands.add_parser("bench", help="run a grid of cells and print the leaderboard")
    parser.add_argument(
        "--method", "-m", default="", help="recipe or recipes, separated by commas; a YAML file; or all"
    )
    parser.add_argument(
        "--record", type=Path, default=None, metavar="FILE",
        help="compute the cell of this record again and compare; of a file of several those of --datasets and --seeds",
    )  # fmt: skip
    add_grid(parser)
    parser.add_argument(
        "--config", action="append", default=[], help="a YAML file whose settings win over the recipe's"
    )
    add_run(parser)
    parser.set_defaults(run=run, seeds=None)  # None: not named, which chooses all of a file of records


def add_grid(parser: argparse.ArgumentParser) -> None:
    """The options that say which cells are meant."""
    parser.add_argument("--suite", default="mini", help="mini (default), clip11, or a YAML file")
    parser.add_argument("--datasets", default="", help="some of the suite's datasets, separated by commas")
    parser.add_argument("--seeds", default=SEEDS)
    parser.add_argument("--shots", default="16", help="images per class (default: 16); several as 1,2,4,8,16")
    parser.add_argument(
        "--protocol", default="base_to_novel", help="base_to_novel (default), few_shot or cross_dataset"
    )
    parser.add_argument("--backbone", default=None, help="instead of the suite's, for example ViT-B-32/openai")
    parser.add_argument(
        "--setting", default="paper", choices=["paper", "fixed"], help="fixed: no override by dataset or protocol"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, as model.lr=0.01")
    add_places(parser)


def add_places(parser: argparse.ArgumentParser) -> None:
    """Where data are and results go."""
    parser.add_argument(
        "--root", default=None, help="where the real datasets lie (default: $CLIPBENCH_DATA, else ./data)"
    )
    parser.add_argument("--results", type=Path, default=None, help="folder of all runs (default: results/runs)")


def add_run(parser: argparse.ArgumentParser) -> None:
    """How cells are run, or only planned."""
    parser.add_argument("--jobs", type=int, default=None, help="worker processes (default: 2 for many cells on a CPU)")
    parser.add_argument("--dry-run", action="store_true", help="print the plan with an estimate and stop")


@named_by("--results")
def run(options: argparse.Namespace) -> int:
    """Run what is missing, write and print the leaderboard; 1 when cells failed.

    With `--record`: 1 when a cell is not equal.

    Raises:
        ClipbenchError: a wrong call, or data that are missing.
    """
    if options.record is not None:
        return again(options)
    options.seeds = SEEDS if options.seeds is None else options.seeds
    from clipbench.recipes.request import request_from

    request = request_from(options)  # wrong words are refused before torch is there
    from clipbench.bench.grid import run_bench
    from clipbench.report import write_leaderboard
    from clipbench.resources import runs_dir

    def leaderboard(plan: Plan, console: Console) -> None:
        suite = request.suite
        board = write_leaderboard(plan.folder, plan.cells, list(suite.datasets), suite.note, request.datasets or None)
        board.print(console)

    return run_bench(request, options.results or runs_dir(), leaderboard, options.jobs, options.dry_run)


def again(options: argparse.Namespace) -> int:
    """Compute the cells of records again and compare; 1 when one is not equal.

    Raises:
        ClipbenchError: a wrong call, a damaged record, or one that cannot be computed again.
    """
    from clipbench.recipes.recipe import load_recipe
    from clipbench.recipes.request import requested_names
    from clipbench.records.packed import choose, read_records

    given = [name for name, default in OF_A_GRID.items() if getattr(options, name) != default]
    if given:
        raise ConfigError(f"bench --record computes what the record says: leave out --{given[0]}")
    wanted = {"dataset": requested_names(options.datasets), "seed": requested_names(options.seeds or "")}
    records = choose(read_records(options.record), options.record.name, wanted)
    recipe = load_recipe(options.method) if options.method else None
    from clipbench.bench.again import compute_again

    return compute_again(records, options.results, recipe, options.root, options.dry_run)
