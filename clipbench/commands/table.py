"""`clipbench table`: the leaderboard from the records there are, on request with the papers' rows."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from clipbench.errors import RecordError
from clipbench.records.store import run_folder
from clipbench.report.compare import published_sections
from clipbench.report.leaderboard import load_frame
from clipbench.report.published import TABLES, published_frame
from clipbench.report.tables import render


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
