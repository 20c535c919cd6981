"""`clipbench table`: the leaderboard from the records there are, on request with the papers' rows."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clipbench.atomic import named_by, write_text
from clipbench.errors import ConfigError, RecordError, UnknownName
from clipbench.printable import printable


def add_parser(commands: Any) -> None:
    """The words of the command."""
    parser = commands.add_parser("table", help="the leaderboard from the records there are")
    parser.add_argument(
        "--suite", default="mini", help="mini (default), clip11, another suite's name, or its YAML file"
    )
    parser.add_argument(
        "--protocol", default="base_to_novel", help="base_to_novel (default), few_shot or cross_dataset"
    )
    parser.add_argument("--datasets", default="", help="average over these datasets, separated by commas")
    parser.add_argument("--methods", default="", help="these recipes, separated by commas")
    parser.add_argument("--seeds", default="", help="these seeds, separated by commas")
    parser.add_argument("--shots", default="", help="these numbers of shots, separated by commas")
    parser.add_argument("--backbone", default=None, help="this backbone")
    parser.add_argument("--per-seed", action="store_true", help="a row for each seed in place of means over seeds")
    parser.add_argument(
        "--validation-free", action="store_true", help="rows alone whose settings saw no further labelled images"
    )
    parser.add_argument("--results", type=Path, default=None, help="folder of all runs (default: results/runs)")
    parser.add_argument("--format", default="text", choices=["text", "csv", "md", "tex", "json"])
    parser.add_argument("--output", type=Path, default=None, help="write the table into this file")
    parser.add_argument("--compare", choices=["published"], default=None, help="put the papers' rows beside ours")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the table, or write it.

    Raises:
        ClipbenchError: an unknown suite, dataset or recipe, no record to show, or the table cannot be written: then it
            is printed.
    """
    from clipbench.backbone.spec import usual_name
    from clipbench.recipes.request import requested_names
    from clipbench.recipes.suites import load_suite
    from clipbench.resources import runs_dir

    suite = options.suite
    if suite.endswith((".yaml", ".yml")):
        suite = load_suite(suite).name
    wanted: dict[str, Sequence[str]] = {
        "dataset": requested_names(options.datasets), "recipe": requested_names(options.methods),
        "seed": requested_names(options.seeds), "shots": requested_names(options.shots),
        "backbone": () if options.backbone is None else (usual_name(options.backbone),),
    }  # fmt: skip
    if options.output is not None and not options.output.name:
        raise ConfigError(f"--output '{options.output}' names no file")
    results = options.results or runs_dir()
    text, notes = table(
        results, suite, options.protocol, options.format, options.compare, wanted, options.per_seed,
        options.validation_free,
    )  # fmt: skip
    if options.format in ("csv", "json"):  # the others hold them
        for note in notes:
            print(printable(f"! {note}"), file=sys.stderr)
    if options.output is None:
        print(text)
        return 0
    try:
        with named_by("--output"):
            write_text(options.output, text + "\n")
    except RecordError:
        print(text)
        raise
    return 0


def table_text(*arguments: Any, **more: Any) -> str:
    """What `clipbench table` prints; arguments and errors as of `table`."""
    return table(*arguments, **more)[0]


def table(
    results: Path | str,
    suite: str,
    protocol: str,
    format: str = "text",
    compare: str | None = None,
    wanted: Mapping[str, Sequence[str]] | None = None,
    per_seed: bool = False,
    validation_free: bool = False,
) -> tuple[str, list[str]]:
    """What `clipbench table` prints, and its notes: what is odd, which `text`, `md` and `tex` hold too.

    Args:
        results: the folder of all runs.
        suite: name of the suite.
        protocol: name of the protocol.
        format: `text`, `csv`, `md`, `tex` or `json`.
        compare: `published` adds the papers' rows (in `csv` as rows of setting `published`), also without any record.
        wanted: which cells, by attribute of a cell (`dataset`, `recipe`, `seed`, `shots`, `backbone`): its values as
            text; empty: all. Averages are over the datasets that are named.
        per_seed: rows of one seed each.
        validation_free: rows alone that say that no setting was chosen on labelled images beyond the shots.

    Raises:
        RecordError: there is no record and nothing to compare.
        UnknownName: no record is of a value that is named.
        ConfigError: the papers' averages are to stand beside those over some of the datasets, or of single seeds; the
            source of a transfer is named.
    """
    import pandas as pd  # here, as all below: `clipbench --help` need not pay for it

    from clipbench.records.store import Cell, RecordStore, run_folder
    from clipbench.report.compare import published_rows, published_sections
    from clipbench.report.leaderboard import frame_of, left_out, partial_grid
    from clipbench.report.published import TABLES
    from clipbench.report.tables import render

    folder = run_folder(results, suite, protocol)
    scan = RecordStore(folder).scan()
    chosen = {name: set(values) for name, values in (wanted or {}).items() if values}
    for name, values in chosen.items():
        there = {str(getattr(record.cell, name)) for record in scan.records if name != "dataset"}
        if name == "dataset":
            there = {dataset for record in scan.records for dataset in record.measured}
        sources = {record.cell.dataset for record in scan.records} - there
        if name == "dataset" and (trained := sorted(values & sources)):
            raise ConfigError(f"'{trained[0]}' is trained on, which counts in no average: --datasets names targets")
        if there and (unknown := sorted(values - there)):
            raise UnknownName(f"{name} among the records in {folder}:", unknown[0], there)
    over = list((wanted or {}).get("dataset", ()))
    for asked, option in ((over, "--datasets"), (per_seed, "--per-seed")):
        if asked and compare is not None:
            raise ConfigError(f"--compare published: the papers print means over all datasets, leave out {option}")

    def is_wanted(cell: Cell) -> bool:
        # of cross_dataset each cell measures many datasets: those that are not wanted are left out of its rows
        whole = ("dataset",) if cell.protocol == "cross_dataset" else ()
        return all(str(getattr(cell, name)) in values for name, values in chosen.items() if name not in whole)

    frame = frame_of(scan, over=over or None, of=is_wanted, per_seed=per_seed, validation_free=validation_free)
    notes: list[str] = frame.attrs["notes"]
    if compare is None:
        if frame.empty:
            if validation_free and scan.records:
                raise RecordError(f"no row of the records in {folder} says that it is validation-free")
            if scan.records and chosen:
                named = ", ".join(f"{name} {' or '.join(sorted(values))}" for name, values in chosen.items())
                raise RecordError(f"none of the {len(scan.records)} records in {folder} is of {named}")
            others = sorted(f"{path.parts[-3]} {path.parts[-2]}" for path in Path(results).glob("*/*/records/"))
            hint = f"; there are records of {', '.join(others)}" if others and not scan.problems else ""
            hint = "".join(f"; {note}" for note in left_out(scan.problems)) or hint
            raise RecordError(f"there is no record in {folder}{hint}; run `make bench METHOD=clipfit` first")
        notes += [] if over else partial_grid(frame)
        return render(frame, format).rstrip("\n"), notes
    if format in ("csv", "json"):
        papers = published_rows(frame, protocol if protocol in TABLES else TABLES[0])
        return render(papers if frame.empty else pd.concat([frame, papers]), format).rstrip("\n"), notes
    if frame.empty:
        frame = pd.DataFrame([{**dict.fromkeys(frame.columns, ""), "suite": suite, "protocol": protocol, "shots": 0}])
        return render(frame.iloc[:0], format, beside=published_sections(frame)).rstrip("\n"), notes
    return render(frame, format, beside=published_sections(frame)).rstrip("\n"), notes
