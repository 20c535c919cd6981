"""A record for people: what was computed, how well it did, what it took, and where it ran."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from clipbench.printable import printable
from clipbench.records.store import Record
from clipbench.report.harmonic import harmonic_mean
from clipbench.report.layout import COSTS, PROTOCOLS
from clipbench.report.variants import is_of_earlier_version, settings_of


def record_text(record: Record) -> str:
    """All of one record, but for its bitmaps and its whole config."""
    cell, data = record.cell, record.data
    place = f"{PROTOCOLS.get(cell.protocol, cell.protocol)}, setting {cell.setting}"
    lines = [
        f"{cell}: {record.method or 'failed'}", f"  suite {cell.suite}, backbone {cell.backbone}, {place}",
        f"  key {record.key}", f"  finished {record.finished or 'at an unknown time'}",
    ]  # fmt: skip
    blocks = {"accuracy": _accuracies(record), "settings other than the packaged recipe's": _settings(record)}
    blocks["cost"] = [f"{head} {form(_number(record.cost.get(name)))}" for name, head, form in COSTS]
    blocks["last losses"] = [f"{name} {value:.6g}" for name, value in data["losses"].items() if value is not None]
    blocks["what it is made of"] = [f"{name} {_short(value)}" for name, value in _origin(record).items()]
    environment = data["environment"]
    blocks["environment"] = [f"{name} {_short(value)}" for name, value in environment.items() if value is not None]
    for head, block in blocks.items():
        lines += [head, *(f"  {line}" for line in block)] if block else []
    return "\n".join(map(printable, lines))


def records_text(records: Sequence[Record]) -> str:
    """A line for each of several records."""
    return "\n".join(printable(f"{record.cell}: {_summary(record)}, key {record.key[:12]}") for record in records)


def _summary(record: Record) -> str:
    scores = ", ".join(f"{name} {record.accuracy(name):.2f} %" for name in record.splits)
    return scores if record.ok else f"failed ({record.error})"


def _accuracies(record: Record) -> list[str]:
    if not record.ok:
        return [f"none: the cell failed ({record.error})"]
    lines = []
    for name, split in record.splits.items():
        kind = "that were trained on" if split["trained"] else "that were not trained on"
        answers = ", answered zero-shot" if split["novel_rule"] == "frozen" else ""
        count = f"{split['correct']} of {split['total']} images, {split['classes']} classes {kind}{answers}"
        lines.append(f"{name} {record.accuracy(name):.2f} %: {count}")
    if {"base", "novel"} <= record.splits.keys():
        lines.append(f"H {harmonic_mean(record.accuracy('base'), record.accuracy('novel')):.2f} %")
    return lines


def _settings(record: Record) -> list[str]:
    if is_of_earlier_version(record.provenance):
        changed = [f"{name} {_short(value)}" for name, value in settings_of(record.provenance).items()]
        return [*changed, "of an earlier version, which kept no more of this"]
    return [f"{name} {_short(value)}" for name, value in sorted(settings_of(record.provenance).items())] or ["none"]


def _origin(record: Record) -> dict[str, Any]:
    """Hashes, versions and templates, flat; the row's own entries stand above."""
    shown: dict[str, Any] = {}
    for name, value in record.provenance.items():
        if name in ("variant", "changed", "recipe_digest"):
            continue
        if name == "versions" and isinstance(value, dict):
            shown["versions"] = ", ".join(f"{key} {number}" for key, number in value.items())
        else:
            shown[name] = value
    return shown


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:97]}..."
