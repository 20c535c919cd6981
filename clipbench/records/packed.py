"""Files of several records, a record a line (`.jsonl`, `.jsonl.gz`), as `results/mini/records` has them."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clipbench.atomic import write_bytes
from clipbench.errors import RecordError, UnknownName
from clipbench.records.cell import Record
from clipbench.records.reading import LARGEST, parse_record, read_record
from clipbench.regular_files import Fault, read_bytes

LARGEST_FILE = 128_000_000  # bytes of a file of several records, as it is stored and unpacked
PACKED = (".jsonl", ".jsonl.gz")


def is_packed(path: Path) -> bool:
    """Whether a file holds several records, by its name."""
    return path.name.endswith(PACKED)


def read_records(path: Path | str) -> list[Record]:
    """The records of a file: one (`.json`), or one a line.

    Raises:
        RecordError: it is missing, no such file, too large, or one of its records is damaged.
    """
    path = Path(path)
    if not is_packed(path):
        return [read_record(path)]
    found = []
    for number, line in enumerate(_lines(path), 1):
        if line.strip():
            found.append(Record(parse_record(line, f"line {number} of '{path.name}' in {path.parent}"), path))
    if not found:
        raise RecordError(f"'{path.name}' in {path.parent} holds no record")
    return found


def choose(records: Sequence[Record], file: str, wanted: Mapping[str, Sequence[str]]) -> list[Record]:
    """The records of the wanted cells.

    Args:
        records: of one file.
        file: its name, for the message.
        wanted: values, as text, by attribute of a cell (`dataset`, `seed` ...); empty: all.

    Raises:
        UnknownName: the file has none of such a value.
        RecordError: it has none where all of them meet.
    """
    for name, values in wanted.items():
        there = {str(getattr(record.cell, name)) for record in records}
        for value in values:
            if value not in there:
                raise UnknownName(f"{name} among the records of '{file}':", value, there)
    found = [
        record for record in records
        if all(str(getattr(record.cell, name)) in values for name, values in wanted.items() if values)
    ]  # fmt: skip
    if not found:
        asked = ", ".join(f"{name} {' or '.join(values)}" for name, values in wanted.items() if values)
        raise RecordError(f"'{file}' holds no record of {asked}")
    return found


def write_packed(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Writes records by dataset and seed, a record a line; equal records give equal bytes.

    Raises:
        RecordError: the folder is read-only or full.
    """
    ordered = sorted(records, key=lambda record: (record["cell"]["dataset"], record["cell"]["seed"]))
    lines = "".join(json.dumps(record, sort_keys=True, separators=(",", ":")) + "\n" for record in ordered)
    content = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=content, compresslevel=9, mtime=0) as file:
        file.write(lines.encode())
    write_bytes(path, content.getvalue())


def _lines(path: Path) -> Iterator[bytes]:
    where = f"'{path.name}' in {path.parent}"
    try:
        content = read_bytes(path, LARGEST_FILE)
        if path.name.endswith(".gz"):
            content = _unpacked(content)
    except FileNotFoundError as error:
        raise RecordError(f"{where} is not there") from error
    except Fault as fault:
        raise RecordError(f"{where} {fault}") from fault
    except OSError as error:
        raise RecordError(f"{where} cannot be read ({error.strerror or error})") from error
    for line in content.split(b"\n"):
        if len(line) > LARGEST:
            raise RecordError(
                f"{where} has a line of {len(line) / 1e6:.0f} MB, of {LARGEST / 1e6:.0f} that a record may have"
            )
        yield line


def _unpacked(content: bytes) -> bytes:
    """All of its members: two such files joined are one."""
    text, rest = b"", content
    while True:
        unpacker = zlib.decompressobj(wbits=31)
        try:
            text += unpacker.decompress(rest, LARGEST_FILE + 1 - len(text))
        except zlib.error as error:
            raise Fault(f"is damaged or no gzip file ({error})") from error
        if len(text) > LARGEST_FILE:
            raise Fault(f"unpacks to more than {LARGEST_FILE / 1e6:.0f} MB")
        if not unpacker.eof:
            raise Fault("is cut off")
        rest = unpacker.unused_data
        if not rest:
            return text
