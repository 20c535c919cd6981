"""The command line, `clipbench bench|fit|validate|test|table|list|show|data|analyze|predict`; torch comes with work."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipbench import __version__
from clipbench.errors import ClipbenchError, ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from clipbench.bench.plan import Plan

LIGHTNING = ("fit", "validate", "test")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status.

    0: everything asked for was done; 1: something failed; 2: a wrong call; 130: stopped by Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if {"", os.getcwd()}.isdisjoint(sys.path):
        sys.path.append(os.getcwd())  # modules beside the user, as `python -m` finds them; installed ones come first
    try:
        if words and words[0] in LIGHTNING:
            from clipbench.bench.lightning_run import run_lightning

            return run_lightning(words[0], words[1:])
        options = _parser().parse_args(words)
        return options.run(options)
    except ClipbenchError as error:
        print(f"clipbench: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("clipbench: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `clipbench list methods | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as stop:
        return int(stop.code or 0) if not isinstance(stop.code, str) else 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="clipbench", description="Few-shot CLIP benchmarks: many strategies, one exact protocol, one table."
    )
    parser.add_argument("--version", action="version", version=f"clipbench {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in LIGHTNING:
        commands.add_parser(name, help=f"one LightningCLI run: {name} (clipbench {name} --help)")
    _add_bench(commands)
    _add_study(commands)
    _add_table(commands)
    _add_list(commands)
    _add_show(commands)
    _add_data(commands)
    _add_analyze(commands)
    _add_predict(commands)
    return parser


def _add_bench(commands: Any) -> None:
    bench = commands.add_parser("bench", help="run a grid of cells and print the leaderboard")
    bench.add_argument(
        "--method", "-m", required=True, help="recipe or recipes, separated by commas; a YAML file; or all"
    )
    _add_grid(bench)
    bench.add_argument("--config", action="append", default=[], help="a YAML file whose settings win over the recipe's")
    bench.add_argument("--jobs", type=int, default=None, help="worker processes (default: 2 for many cells on a CPU)")
    bench.add_argument("--dry-run", action="store_true", help="print the plan with an estimate and stop")
    bench.set_defaults(run=_bench)


def _add_grid(parser: argparse.ArgumentParser) -> None:
    """The options that say which cells are meant."""
    parser.add_argument("--suite", default="mini", help="mini (default), clip11, or a YAML file")
    parser.add_argument("--datasets", default="", help="some of the suite's datasets, separated by commas")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--protocol", default="base_to_novel", help="base_to_novel (default) or few_shot")
    parser.add_argument("--backbone", default=None, help="instead of the suite's, for example ViT-B-32/openai")
    parser.add_argument("--setting", default="paper", choices=["paper", "fixed"], help="fixed: no override by dataset")
    parser.add_argument(
        "--root", default=None, help="where the real datasets lie (default: $CLIPBENCH_DATA, else ./data)"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, as model.lr=0.01")
    parser.add_argument("--results", type=Path, default=None, help="folder of all runs (default: results/runs)")


def _bench(options: argparse.Namespace) -> int:
    from clipbench.bench.cell_config import check_user
    from clipbench.bench.request import request_from

    request = request_from(options)
    check_user(request)
    from clipbench.bench.grid import run_bench
    from clipbench.report import write_leaderboard
    from clipbench.resources import runs_dir

    def leaderboard(plan: Plan, console: Console) -> None:
        write_leaderboard(plan.folder, plan.cells, list(request.suite.datasets), request.suite.note).print(console)

    return run_bench(request, options.results or runs_dir(), leaderboard, options.jobs, options.dry_run)


def _add_study(commands: Any) -> None:
    study = commands.add_parser("study", help="run a named set of recipes; print its table, draw its figure")
    study.add_argument("name", help="a packaged study (clipbench list studies), or a YAML file")
    study.add_argument("--variants", default="", help="some of its variants, separated by commas")
    study.add_argument(
        "--root", default=None, help="where the real datasets lie (default: $CLIPBENCH_DATA, else ./data)"
    )
    study.add_argument("--results", type=Path, default=None, help="folder of all runs (default: results/runs)")
    study.add_argument("--jobs", type=int, default=None, help="worker processes (default: 2 for many cells on a CPU)")
    study.add_argument("--dry-run", action="store_true", help="print the plan with an estimate and stop")
    study.set_defaults(run=_study)


def _study(options: argparse.Namespace) -> int:
    from clipbench.bench.studies import load_study, run_study
    from clipbench.resources import runs_dir

    only = [word for word in options.variants.replace(",", " ").split() if word]
    study, results = load_study(options.name), options.results or runs_dir()

    def write(plan: Plan, console: Console) -> None:
        from clipbench.report.study import write_study

        suite = plan.request.suite
        folder = study.folder(results)
        write_study(study, plan.folder, folder, plan.cells, list(suite.datasets), suite.note).print(console)

    return run_study(study, results, write, only, options.jobs, options.dry_run, options.root)


def _add_table(commands: Any) -> None:
    table = commands.add_parser("table", help="the leaderboard from the records there are")
    table.add_argument("--suite", default="mini", help="mini (default), clip11, another suite's name, or its YAML file")
    table.add_argument("--protocol", default="base_to_novel", help="base_to_novel (default) or few_shot")
    table.add_argument("--results", type=Path, default=None, help="folder of all runs (default: results/runs)")
    table.add_argument("--format", default="text", choices=["text", "csv", "md", "tex"])
    table.add_argument("--compare", choices=["published"], default=None, help="put the papers' rows beside ours")
    table.set_defaults(run=_table)


def _table(options: argparse.Namespace) -> int:
    from clipbench.report.command import table_text
    from clipbench.resources import runs_dir

    suite = options.suite
    if suite.endswith((".yaml", ".yml")):
        from clipbench.bench.suites import load_suite

        suite = load_suite(suite).name
    print(table_text(options.results or runs_dir(), suite, options.protocol, options.format, options.compare))
    return 0


def _add_list(commands: Any) -> None:
    parser = commands.add_parser("list", help="what there is, with what each needs")
    parser.add_argument("what", choices=["methods", "datasets", "backbones", "suites", "studies"])
    parser.add_argument("--format", default="text", choices=["text", "json"])
    parser.set_defaults(run=_list)


def _list(options: argparse.Namespace) -> int:
    from clipbench.bench import show

    rows = getattr(show, f"list_{options.what}")()
    print(json.dumps(rows, indent=1) if options.format == "json" else _columns(rows))
    return 0


def _columns(rows: list[dict[str, Any]]) -> str:
    """Rows as aligned columns; the last column runs free."""
    if not rows:
        return "nothing"
    heads = list(rows[0])
    cells = [heads, *[[str(row.get(head, "")) for head in heads] for row in rows]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(heads))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells)


def _add_show(commands: Any) -> None:
    parser = commands.add_parser("show", help="what a recipe trains")
    parser.add_argument("what", choices=["params"])
    parser.add_argument("--config", required=True, help="a packaged recipe or a YAML file")
    parser.add_argument("--backbone", default=None, help="for example ViT-B-16/openai; its weights are not needed")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, as model.rank=8")
    parser.add_argument("--format", default="text", choices=["text", "json"])
    parser.set_defaults(run=_show)


def _show(options: argparse.Namespace) -> int:
    from clipbench.bench.show import said, trained_by

    facts = trained_by(options.config, options.backbone, options.set)
    if options.format == "json":
        print(json.dumps(facts, indent=1))
        return 0
    if facts["parts"]:
        print(_columns([row | {"parameters": f"{row['parameters']:,}"} for row in facts["parts"]]))
    print(said(facts))
    return 0


def _add_data(commands: Any) -> None:
    parser = commands.add_parser("data", help="what is on disk, and the few-shot draw")
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="status|verify|draw")
    for name, text in (("status", "what is there and what is missing"), ("verify", "every path, count and hash")):
        check = kinds.add_parser(name, help=text)
        check.add_argument("datasets", nargs="*", help="cards (default: all real ones)")
        check.add_argument("--root", type=Path, default=None, help="data root (default: $CLIPBENCH_DATA, else ./data)")
        check.set_defaults(run=_data_check)
    draw = kinds.add_parser("draw", help="the drawn files of a dataset; needs the split file, not the images")
    draw.add_argument("dataset")
    draw.add_argument("--shots", type=int, default=16)
    draw.add_argument("--seed", type=int, default=1)
    draw.add_argument("--root", type=Path, default=None)
    draw.add_argument("--splits", type=Path, default=None, help="a folder of split files, plain or gzipped")
    draw.add_argument("--format", default="text", choices=["text", "json"])
    draw.set_defaults(run=_data_draw)


def _data_check(options: argparse.Namespace) -> int:
    from clipbench.data.cards import list_cards, load_card
    from clipbench.data.status import status, verify
    from clipbench.resources import data_root

    names = options.datasets or [name for name in list_cards() if not name.startswith("mini/")]
    cards = [load_card(name) for name in names]
    root = options.root or data_root()
    text, good = (status if options.kind == "status" else verify)(cards, root)
    print(text)
    return 0 if good else 1


def _data_draw(options: argparse.Namespace) -> int:
    from clipbench.data.cards import load_card
    from clipbench.data.draw import draw_listing
    from clipbench.resources import data_root

    listing = draw_listing(
        load_card(options.dataset), options.shots, options.seed, options.root or data_root(), options.splits
    )
    if options.format == "json":
        print(json.dumps(listing))
    else:
        for part in ("train", "val"):
            for item in listing[part]:
                print(f"{part}\t{item['label']}\t{item['path']}")
    return 0


def _add_analyze(commands: Any) -> None:
    parser = commands.add_parser("analyze", help="how far parameters and features moved, what was frozen when")
    parser.add_argument("what", choices=["changes", "features", "freezing"])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", action="append", help="recipe or recipes to fit; repeated: YAML files that win")
    source.add_argument("--weights", type=Path, nargs="+", help="files of what was learned, instead of fits")
    source.add_argument("--record", type=Path, nargs="+", help="freezing: records of runs with FisherFreezing")
    parser.add_argument("--every", type=int, default=10, help="changes: steps between two records of a fit")
    parser.add_argument("--out", type=Path, default=None, help="folder of the outcome (default: beside the records)")
    _add_grid(parser)
    parser.set_defaults(run=_analyze)


def _analyze(options: argparse.Namespace) -> int:
    if (options.what == "freezing") != bool(options.record):
        raise ConfigError("analyze freezing draws --record FILE...; changes and features take --config or --weights")
    if options.record:
        from clipbench.report.freezing import write_freezing

        for record in options.record:
            print(*write_freezing(record, options.out and options.out / record.stem).values(), sep="\n")
        return 0
    from clipbench.analysis.command import run

    return run(options)


def _add_predict(commands: Any) -> None:
    parser = commands.add_parser("predict", help="use what was learned on your own images")
    parser.add_argument("images", nargs="+", help="image files and folders")
    parser.add_argument("--weights", type=Path, required=True, help="file of what was learned")
    parser.add_argument(
        "--classes", default=None, help="class names, separated by commas (default: those that were trained on)"
    )
    parser.add_argument("--top", type=int, default=3)
    parser.add_argument("--format", default="text", choices=["text", "json"])
    parser.set_defaults(run=_predict)


def _predict(options: argparse.Namespace) -> int:
    from clipbench.bench.predict import predict

    given = options.classes
    names = None if given is None else [name.strip() for name in given.split(",") if name.strip()]
    rows = predict(options.images, options.weights, names, options.top)
    if options.format == "json":
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        print(row["image"] + "  " + "  ".join(f"{name} {100 * share:.1f} %" for name, share in row["classes"]))
    return 0
