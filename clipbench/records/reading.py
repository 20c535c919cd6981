"""Records from files that may be damaged: what is read has the schema's types and does not contradict itself."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from clipbench.errors import RecordError
from clipbench.json_files import parse_json
from clipbench.records.cell import Record
from clipbench.records.correctness import count_bits
from clipbench.records.former import in_this_schema
from clipbench.regular_files import Fault, read_bytes
from clipbench.schemas import first_fault

SCHEMA = 2
SCHEMA_FILE = Path(__file__).with_name("record.schema.json")
LARGEST = 16_000_000  # bytes of one record; that of all 50,000 test images of ImageNet has 12 kB


class NewerRecord(RecordError):
    """A record that a later clipbench wrote; it is reported and left alone."""


def read_record(path: Path | str) -> Record:
    """Reads and checks one record.

    Raises:
        NewerRecord: a later clipbench wrote it.
        RecordError: it is missing, half-written, no file, too large, not by the schema, or contradicts itself.
    """
    path = Path(path)
    where = f"record '{path.name}' in {path.parent}"
    try:
        content = read_bytes(path, LARGEST)
    except FileNotFoundError as error:
        raise RecordError(f"record '{path.name}' is not in {path.parent}") from error
    except Fault as fault:
        raise RecordError(f"{where} {fault}") from fault
    except OSError as error:
        raise RecordError(f"{where} cannot be read ({error.strerror or error})") from error
    return Record(parse_record(content, where), path)


def parse_record(content: bytes, where: str) -> dict[str, Any]:
    """The JSON of one record, checked.

    Args:
        content: UTF-8.
        where: begins the message.

    Raises:
        NewerRecord: a later clipbench wrote it.
        RecordError: it is no record, or contradicts itself.
    """
    try:
        data = in_this_schema(parse_json(content), SCHEMA)
    except Fault as fault:
        raise RecordError(f"{where} {fault}") from fault
    check_record(data, where)
    return data


def check_record(data: Any, where: str) -> None:
    """Raises unless the data is a record of our schema that does not contradict itself.

    Raises:
        NewerRecord: a later clipbench wrote it.
        RecordError: it is no record, or contradicts itself.
    """
    schema = data.get("schema") if isinstance(data, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise NewerRecord(
            f"{where} was written by a newer clipbench (schema {schema} > {SCHEMA}); it is left alone: "
            "update clipbench or name another results folder"
        )
    if fault := first_fault(data, SCHEMA_FILE):
        raise RecordError(f"{where} is not valid {fault}")
    joint = {f"joint {name}": data["joint"][name] for name in ("base", "novel") if "joint" in data}
    for name, split in {**data["splits"], **joint}.items():
        try:
            right = count_bits(split["bitmap"], split["total"])
        except RecordError as error:
            raise RecordError(f"{where} contradicts itself: split {name} has {error}") from error
        if right != split["correct"]:
            counts = f"counts {split['correct']} right, its bitmap {right}"
            raise RecordError(f"{where} contradicts itself: split {name} {counts}")
    if "joint" in data:
        _check_pairs(data, where)


def _check_pairs(data: dict[str, Any], where: str) -> None:
    """Raises RecordError unless the pairs of base and novel images are of its images, those won of its right ones."""
    joint, splits = data["joint"], data["splits"]
    halves = [splits[half] for half in ("base", "novel") if half in splits]
    images = math.prod(half["total"] for half in halves)
    right = math.prod(half["correct"] for half in halves)
    pairs = joint["pairs"]
    if len(halves) < 2 or [joint[half]["total"] for half in ("base", "novel")] != [half["total"] for half in halves]:
        raise RecordError(f"{where} contradicts itself: joint is not of the images of base and novel")
    if pairs["total"] != images or pairs["won"] + pairs["tied"] > right:
        won = f"{pairs['won'] + pairs['tied']} of {pairs['total']} pairs won or tied"
        raise RecordError(f"{where} contradicts itself: {won}, where {right} of {images} are right on both sides")
