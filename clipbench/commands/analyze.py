"""`clipbench analyze`: what fine-tuning changed, from fits that are made for it or from learned weights."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipbench.atomic import named_by
from clipbench.commands.bench import add_grid
from clipbench.errors import ConfigError
from clipbench.printable import say

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from clipbench.recipes.request import Request
    from clipbench.recipes.suites import Suite

Rows = list[dict[str, Any]]


def add_parser(commands: Any) -> None:
    """The words of the command."""
    parser = commands.add_parser("analyze", help="how far parameters and features moved, what was frozen when")
    parser.add_argument("what", choices=["changes", "features", "freezing"])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", action="append", help="recipe or recipes to fit; repeated: YAML files that win")
    source.add_argument("--weights", type=Path, nargs="+", help="files of what was learned, instead of fits")
    source.add_argument("--record", type=Path, nargs="+", help="freezing: records of runs with FisherFreezing")
    parser.add_argument("--every", type=int, default=10, help="changes: steps between two records of a fit")
    parser.add_argument("--out", type=Path, default=None, help="folder of the outcome (default: beside the records)")
    add_grid(parser)
    parser.set_defaults(run=run)


@named_by("--results")
def run(options: argparse.Namespace) -> int:
    """`changes`, `features` or `freezing`; 0 when everything asked for was done, 1 when cells failed.

    Raises:
        ConfigError: a wrong call.
        DataError: data are missing or damaged.
        MethodError: weights that does not fit.
    """
    if (options.what == "freezing") != bool(options.record):
        raise ConfigError("analyze freezing draws --record FILE...; changes and features take --config or --weights")
    if options.every < 1:
        raise ConfigError(f"--every {options.every}: at least one step between two records")
    from rich.console import Console

    work = {
        ("freezing", False): _freezing,
        ("changes", True): _changes_of_fits,
        ("changes", False): _changes_of_files,
        ("features", True): _features_of_cells,
        ("features", False): _features_of_files,
    }[options.what, bool(options.config)]
    return work(options, Console())


@named_by("--out")
def _freezing(options: argparse.Namespace, console: Console) -> int:
    from clipbench.report.freezing import write_freezing

    for record in options.record:
        for path in write_freezing(record, options.out and options.out / record.stem).values():
            say(console, str(path))
    return 0


def _request(options: argparse.Namespace) -> Request:
    """The grid, as `clipbench bench` would read it: the first --config is the recipe, later ones win over it."""
    from clipbench.recipes.request import request_from

    words = vars(options) | {"method": options.config[0], "config": options.config[1:], "jobs": 1}
    return request_from(argparse.Namespace(**words))


def _results(options: argparse.Namespace) -> Path:
    from clipbench.resources import runs_dir

    return options.results or runs_dir()


def _changes_of_fits(options: argparse.Namespace, console: Console) -> int:
    request = _request(options)
    from clipbench.analysis.recorder import COLUMNS
    from clipbench.analysis.runs import IDENTITY, identity, recorded_cells
    from clipbench.bench.grid import headline
    from clipbench.bench.plan import make_plan

    plan = make_plan(request, _results(options))
    folder = options.out or plan.folder / "analysis" / _name("changes", request)
    say(console, headline(plan).rpartition(",")[0])
    rows: Rows = []
    failed = 0
    for planned, found in recorded_cells(plan, folder / "cells", options.every, console):
        failed += found is None
        rows += [identity(planned) | row for row in found or ()]
    if rows:
        _write_changes(rows, (*IDENTITY, *COLUMNS), folder, _note(request.suite), console)
    return _ended(failed, console)


def _changes_of_files(options: argparse.Namespace, console: Console) -> int:
    from clipbench.analysis.final_changes import final_rows
    from clipbench.analysis.recorder import COLUMNS
    from clipbench.analysis.runs import IDENTITY

    known = [name for name in COLUMNS if name not in ("step", "steps", "path_length", "gradient_squares")]
    columns = (*IDENTITY, *(name for name in known if name != "gradient_cosine"))
    rows = [row for path in options.weights for row in _identified(final_rows(path), path, options.weights)]
    folder = options.out or Path("analysis/changes")
    _write_changes(rows, columns, folder, "", console)
    return 0


@named_by("--out")
def _write_changes(rows: Rows, columns: tuple[str, ...], folder: Path, note: str, console: Console) -> None:
    """CSV files, figures and the summary of changes."""
    from clipbench.analysis import figures
    from clipbench.analysis.rows import framed, write_rows
    from clipbench.analysis.summary import SUMMARY_COLUMNS, lines_of, profile, summarise
    from clipbench.atomic import write_text
    from clipbench.report.drawing import save_figure

    frame = framed(rows)
    summary, tensors = summarise(frame), profile(frame)
    write_rows(folder / "changes.csv", rows, columns)
    write_rows(folder / "by_tensor.csv", tensors, tuple(tensors[0]))
    write_rows(folder / "summary.csv", summary, SUMMARY_COLUMNS)
    text = "\n".join([*lines_of(summary), note] if note else lines_of(summary))
    write_text(folder / "summary.txt", text + "\n")
    save_figure(figures.layers_figure(frame, note), folder / "changes")
    if "step" in columns:
        save_figure(figures.training_figure(frame, note), folder / "changes_over_training")
    say(console, text)
    _said(folder, console)


def _features_of_cells(options: argparse.Namespace, console: Console) -> int:
    request = _request(options)
    from clipbench.analysis import features
    from clipbench.analysis.rows import read_rows, write_rows
    from clipbench.analysis.runs import Say, identity, stem, with_lines
    from clipbench.bench.grid import run_bench
    from clipbench.bench.plan import PlannedCell, make_plan
    from clipbench.records.store import RecordStore

    status = run_bench(request, _results(options), lambda *_: None, console=console)
    plan = make_plan(request, _results(options))
    folder = options.out or plan.folder / "analysis" / _name("features", request)
    asked = {recipe.name for recipe in request.recipes}
    done = [planned for planned in plan.cells if planned.undone is None and planned.cell.recipe in asked]
    store = RecordStore(plan.folder)

    def measure(planned: PlannedCell, say: Say) -> Rows:
        path = folder / "cells" / f"{stem(planned)}.csv"
        rows = read_rows(path, features.COLUMNS)
        if rows is None:
            rows = features.of_cell(planned, store)
            write_rows(path, rows, features.COLUMNS)
        return rows

    rows: Rows = []
    failed = 0
    for planned, found in with_lines(done, measure, console):
        failed += found is None
        rows += [identity(planned) | row for row in found or ()]
    if rows:
        _write_features(rows, folder, _note(request.suite), console)
    return max(status, _ended(failed, console))


def _features_of_files(options: argparse.Namespace, console: Console) -> int:
    from clipbench.recipes.suites import load_suite

    suite = load_suite(options.suite)
    from clipbench.analysis.features import of_weights

    rows: Rows = []
    for path in options.weights:
        found = of_weights(path, suite, options.protocol, options.root)
        rows += _identified(found, path, options.weights)
    _write_features(rows, options.out or Path("analysis/features"), "", console)
    return 0


@named_by("--out")
def _write_features(rows: Rows, folder: Path, note: str, console: Console) -> None:
    """CSV files, the figure and a table of feature cosines."""
    from clipbench.analysis import figures
    from clipbench.analysis.features import COLUMNS
    from clipbench.analysis.rows import framed, write_rows
    from clipbench.analysis.runs import IDENTITY
    from clipbench.atomic import write_text
    from clipbench.report.drawing import save_figure

    frame = framed(rows)
    write_rows(folder / "features.csv", rows, (*IDENTITY, *COLUMNS))
    text = "\n".join([*_feature_lines(frame), note] if note else _feature_lines(frame))
    write_text(folder / "summary.txt", text + "\n")
    save_figure(figures.features_figure(frame, note), folder / "features")
    say(console, text)
    _said(folder, console)


def _feature_lines(frame: pd.DataFrame) -> Iterable[str]:
    """How far features turned, by dataset and split."""
    kinds = ["text_cosine", "image_cosine"]
    frame = frame.assign(**{name: frame[name].astype(float) for name in kinds})
    cells = frame.groupby(["dataset", "split", "cell"], sort=False)[kinds].mean()
    means = cells.groupby(level=["dataset", "split"], sort=False).mean()
    width = max(len("average"), *(len(str(name)) for name in frame["dataset"]))
    yield "1 - cosine to the pretrained features, mean over classes, then seeds, then datasets"
    splits = list(dict.fromkeys(frame["split"]))
    yield f"{'':<{width}}  " + "  ".join(
        f"{kind.split('_')[0] + ' ' + split:>14}" for split in splits for kind in kinds
    )
    for dataset in [*dict.fromkeys(frame["dataset"]), "average"]:
        values = []
        for split in splits:
            here = means.xs(split, level="split")
            for kind in kinds:
                value = here[kind].mean() if dataset == "average" else here[kind].get(dataset, float("nan"))
                values.append(f"{'-':>14}" if value != value else f"{abs(1 - value):14.6f}")
        yield f"{dataset:<{width}}  " + "  ".join(values)


def _identified(rows: Rows, path: Path, paths: list[Path]) -> Rows:
    """Rows of learned weights with the identity columns of `runs.IDENTITY`; shots are not known."""
    from clipbench.methods.weights_file import read_header

    header = read_header(path)
    name = path.stem if sum(other.stem == path.stem for other in paths) == 1 else str(path)
    about = {"cell": name, "recipe": header.recipe or header.method, "backbone": header.backbone, "shots": None}
    return [about | row for row in rows]


def _name(kind: str, request: Request) -> str:
    return "-".join([kind, *(recipe.name for recipe in request.recipes)])


def _note(suite: Suite) -> str:
    return suite.note


def _ended(failed: int, console: Console) -> int:
    if failed:
        console.print(f"{failed} cells failed and are not in the numbers above; the same command tries again")
    return 1 if failed else 0


def _said(folder: Path, console: Console) -> None:
    names = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_file() and path.name[0] != "."))
    say(console, f"{folder}: {names}")
