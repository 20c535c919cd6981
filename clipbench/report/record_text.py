"""A record for people: what was computed, how well it did, what it took, and where it ran."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from clipbench.printable import printable
from clipbench.records.store import Record
from clipbench.report.harmonic import harmonic_mean
from clipbench.report.layout import PROTOCOLS
from clipbench.report.printed import COSTS
from clipbench.report.variants import is_of_earlier_version, settings_of


def record_text(record: Record) -> str:
    """All of one record, but for its bitmaps and its whole config."""
    cell, data = record.cell, record.data
    place = f"{PROTOCOLS.get(cell.protocol, cell.protocol)}, setting {cell.setting}"
    lines = [
        f"{cell}: {record.method or 'failed'}", f"  suite {cell.suite}, backbone {cell.backbone}, {place}",
        f"  key {record.key}", f"  finished {record.finished or 'at an unknown time'}",
    ]  # fmt: skip
    blocks = {
        "accuracy": _accuracies(record),
        "validation-free": _validation(record),
        "settings other than the packaged recipe's": _settings(record),
    }
    blocks["cost"] = [f"{head} {form(_number(record.cost.get(name)))}" for name, head, form in COSTS]
    blocks["what the fit found"] = [
        f"{name} {_short(value)}" for name, value in (data.get("diagnostics") or {}).items()
    ]
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
    return [*lines, *_joint(record)]


def _joint(record: Record) -> list[str]:
    """Both halves among all classes at once, or why that was not measured; nothing of older records."""
    if "joint" not in record.data:
        return (
            [f"not measured over all classes at once: {record.data['no_joint']}"] if "no_joint" in record.data else []
        )
    joint, shares = record.data["joint"], record.joint()
    lines = [
        f"{half} among all {joint['classes']} classes {shares[f'joint_{half}']:.2f} %: "
        f"{joint[half]['correct']} of {joint[half]['total']} images"
        for half in ("base", "novel")
    ]
    pairs, rule = joint["pairs"], record.splits["novel"]["novel_rule"] == "frozen"
    won = f"{pairs['won']} of {pairs['total']} pairs won, {pairs['tied']} tied"
    divided = ["zero-shot divides the probability between the halves"] if rule else []
    h = f"H among all classes {harmonic_mean(shares['joint_base'], shares['joint_novel']):.2f} %"
    return [*lines, h, f"OpenworldAUC {shares['openworld_auc']:.2f} %: {won}", *divided]


def _validation(record: Record) -> list[str]:
    """Whether a setting was chosen by looking at labelled images beyond the shots, and which; nothing where unknown."""
    looked = record.provenance.get("val_images", 0)
    chosen: dict[str, list[str]] = {}
    for name, images in sorted(record.provenance.get("selected_on", {}).items()):
        chosen.setdefault(images, []).append(name)
    why = [f"the fit looked at {looked} val images"] if looked else []
    why += [f"{', '.join(names)} chosen on {images}" for images, names in chosen.items()]
    if record.validation_free is None:
        return why
    return (
        ["yes: no setting was chosen on labelled images beyond the shots"]
        if record.validation_free
        else [*(why or ["no: what it starts from is not"])]
    )


def _settings(record: Record) -> list[str]:
    if is_of_earlier_version(record.provenance):
        changed = [f"{name} {_short(value)}" for name, value in settings_of(record.provenance).items()]
        return [*changed, "of an earlier version, which kept no more of this"]
    return [f"{name} {_short(value)}" for name, value in sorted(settings_of(record.provenance).items())] or ["none"]


def _origin(record: Record) -> dict[str, Any]:
    """Hashes, versions and templates, flat; the row's own entries stand above."""
    shown: dict[str, Any] = {}
    for name, value in record.provenance.items():
        if name in ("variant", "changed", "recipe_digest", "selected_on", "val_images"):
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
