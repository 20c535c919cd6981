"""`clipbench table`: the leaderboard from the records there are, on request with the papers' rows."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from clipbench.errors import RecordError


def add_parser(commands: Any) -> None:
    """The words of the command."""
    parser = commands.add_parser("table", help="the leaderboard from the records there are")
    parser.add_argument(
        "--suite", default="mini", help="mini (default), clip11, another suite's name, or its YAML file"
    )
    parser.add_argument("--protocol", default="base_to_novel", help="base_to_novel (default) or few_shot")
    parser.add_argument("--results", type=Path, default=None, help="folder of all runs (default: results/runs)")
    parser.add_argument("--format", default="text", choices=["text", "csv", "md", "tex"])
    parser.add_argument("--compare", choices=["published"], default=None, help="put the papers' rows beside ours")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the table.

    Raises:
        ClipbenchError: an unknown suite, or no record to show.
    """
    from clipbench.recipes.suites import load_suite
    from clipbench.resources import runs_dir

    suite = options.suite
    if suite.endswith((".yaml", ".yml")):
        suite = load_suite(suite).name
    print(table_text(options.results or runs_dir(), suite, options.protocol, options.format, options.compare))
    return 0


def table_text(results: Path | str, suite: str, protocol: str, format: str = "text", compare: str | None = None) -> str:
    """What `clipbench table` prints.

    Args:
        results: the folder of all runs.
        suite: name of the suite.
        protocol: name of the protocol.
        format: `text`, `csv`, `md` or `tex`.
        compare: `published` adds the papers' rows (in `csv` as rows of setting `published`), also without any record.

    Raises:
        RecordError: there is no record and nothing to compare.
    """
    import pandas as pd  # here, as all below: `clipbench --help` need not pay for it

    from clipbench.records.store import run_folder
    from clipbench.report.compare import published_sections
    from clipbench.report.leaderboard import load_frame
    from clipbench.report.published import TABLES, published_frame
    from clipbench.report.tables import render

    folder = run_folder(results, suite, protocol)
    frame = load_frame(folder)
    if compare is None:
        if frame.empty:
            there = sorted(f"{path.parts[-3]} {path.parts[-2]}" for path in Path(results).glob("*/*/records"))
            hint = f"; there are records of {', '.join(there)}" if there else ""
            raise RecordError(f"there is no record in {folder}{hint}; run `make bench METHOD=clipfit` first")
        return render(frame, format).rstrip("\n")
    if format == "csv":
        papers = published_frame(protocol if protocol in TABLES else TABLES[0])
        return render(papers if frame.empty else pd.concat([frame, papers]), format).rstrip("\n")
    if frame.empty:
        frame = pd.DataFrame([{**dict.fromkeys(frame.columns, ""), "suite": suite, "protocol": protocol, "shots": 0}])
        return render(frame.iloc[:0], format, beside=published_sections(frame)).rstrip("\n")
    return render(frame, format, beside=published_sections(frame)).rstrip("\n")
