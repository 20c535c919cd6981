"""Records on disk: one JSON file per cell, whole or not at all, and the store that says which cells are done."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from clipbench.atomic import cannot_write, replacing, write_bytes, write_text
from clipbench.errors import RecordError
from clipbench.records.cell import Cell, Record, comparable, content_key
from clipbench.records.correctness import count_bits, pack_bits, unpack_bits

if TYPE_CHECKING:
    import jsonschema.protocols

SCHEMA = 2

__all__ = [
    "SCHEMA",
    "Cell",
    "NewerRecord",
    "Record",
    "RecordStore",
    "Scan",
    "comparable",
    "content_key",
    "pack_bits",
    "read_record",
    "replacing",
    "run_folder",
    "unpack_bits",
    "write_record",
    "write_text",
]


class NewerRecord(RecordError):
    """A record that a later clipbench wrote; it is reported and left alone."""


def run_folder(root: Path | str, suite: str, protocol: str) -> Path:
    """The folder of one leaderboard below the results: `<root>/<suite>/<protocol>`."""
    return Path(root) / suite / protocol


def read_record(path: Path | str) -> Record:
    """Reads and checks one record.

    Raises:
        NewerRecord: a later clipbench wrote it.
        RecordError: it is missing, half-written, not by the schema, or contradicts itself.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_not_finite)
    except FileNotFoundError as error:
        raise RecordError(f"record '{path.name}' is not in {path.parent}") from error
    except (OSError, ValueError) as error:  # ValueError: not JSON, not UTF-8, or a number that is not finite
        raise RecordError(
            f"record '{path.name}' in {path.parent} cannot be read or is half-written ({error})"
        ) from error
    data = _in_this_schema(data)
    _check(data, path)
    return Record(data, path)


def write_record(folder: Path | str, record: Mapping[str, Any]) -> Path:
    """Writes a record into `<folder>/records/`, whole or not at all.

    Args:
        folder: the run folder, see `run_folder`.
        record: the JSON object, see `record.schema.json`.

    Returns:
        The path of the file.

    Raises:
        NewerRecord: a later clipbench wrote a record of that name.
        RecordError: the record is not valid, or the folder is read-only or full.
    """
    data = dict(record)
    try:
        text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise RecordError(f"the record of {data.get('cell')} is not finite plain data: {error}") from error
    _check(json.loads(text), None)
    path = RecordStore(folder).path_for(Cell.from_dict(data["cell"]), data["key"])
    if path.exists():
        _refuse_newer(path)
    return write_text(path, text)


class Scan(NamedTuple):
    """What lies in a run folder: the records that can be read, and a sentence for each file that cannot."""

    records: list[Record]
    problems: list[str]


class RecordStore:
    """The records and learned weights of one run folder (`<results>/<suite>/<protocol>`).

    A cell is done when its record parses, its status is ok, its cell and key match, and its learned weights (where some
    were stored) lie beside it. Anything else is run again.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def path_for(self, cell: Cell, key: str) -> Path:
        """Where the record of this cell and key lies or will lie."""
        return self.folder / "records" / f"{cell.name}-{key[:12]}.json"

    def weights_for(self, cell: Cell, key: str) -> Path:
        """Where the learned weights of this cell and key lie or will lie."""
        return self.folder / "weights" / f"{cell.name}-{key[:12]}.safetensors"

    def find(self, cell: Cell, key: str) -> Record | None:
        """The record of a cell that is done, else None (`why_undone` says why).

        Raises:
            NewerRecord: a later clipbench wrote a record of that name; it must not be run over.
        """
        found = self._look(cell, key)
        return found if isinstance(found, Record) else None

    def why_undone(self, cell: Cell, key: str) -> str | None:
        """Why the cell has to be run, in a few words, or None when it is done."""
        found = self._look(cell, key)
        return None if isinstance(found, Record) else found

    def _look(self, cell: Cell, key: str) -> Record | str:
        path = self.path_for(cell, key)
        if not path.exists():
            return "no record yet"
        try:
            record = read_record(path)
        except NewerRecord:
            raise
        except RecordError as error:
            return str(error)
        if record.cell != cell or record.key != key:
            return f"record '{path.name}' is of another cell or key"
        if not record.ok:
            return f"failed before ({record.error})"
        weights = self.weights_for(cell, key)
        if record.cost.get("stored_bytes") and not (weights.is_file() and weights.stat().st_size):
            return f"its learned weights '{weights.name}' are missing"
        return record

    def scan(self) -> Scan:
        """All records, in order of file names, with the files that cannot be read named one by one."""
        records, problems = [], []
        for path in sorted((self.folder / "records").glob("*.json")):
            if path.name.startswith("."):
                continue
            try:
                records.append(read_record(path))
            except RecordError as error:
                problems.append(str(error))
        return Scan(records, problems)

    def all(self) -> list[Record]:
        """All records that can be read, failed cells included."""
        return self.scan().records

    def check_writable(self) -> None:
        """Finds out before any work starts whether records can be written.

        Raises:
            RecordError: the folder is read-only or full.
        """
        probe = self.folder / "records" / ".probe"
        write_bytes(probe, b"clipbench" * 512)
        probe.unlink(missing_ok=True)

    @contextlib.contextmanager
    def claim(self, cell: Cell, key: str, timeout: float = 0.0) -> Iterator[bool]:
        """Takes a cell for this process: True when it is ours, False when another live process has it.

        The lock is the operating system's, so a killed process frees it. After True, ask `find` once more: the other
        bench may have finished the cell in between.

        Args:
            cell: the cell.
            key: its content key.
            timeout: seconds to wait for the other process.

        Raises:
            RecordError: the folder is read-only or full.
        """
        import filelock  # here: it imports asyncio, which `--help` need not pay for

        path = self.folder / "records" / ".locks" / f"{self.path_for(cell, key).stem}.lock"
        lock = filelock.FileLock(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=timeout)
        except filelock.Timeout:
            mine = False
        except OSError as error:
            raise cannot_write(path, error) from error
        else:
            mine = True
        try:
            yield mine
        finally:
            lock.release()


@functools.cache
def _validator() -> jsonschema.protocols.Validator:
    import jsonschema

    schema = json.loads(Path(__file__).with_name("record.schema.json").read_text(encoding="utf-8"))
    return jsonschema.Draft202012Validator(schema)


def _in_this_schema(data: Any) -> Any:
    """A record of an earlier schema in the words of this one: schema 1 called the diagnostics findings."""
    if not isinstance(data, dict) or data.get("schema") != 1:
        return data
    return {"diagnostics" if name == "findings" else name: value for name, value in data.items()} | {"schema": SCHEMA}


def _check(data: Any, path: Path | None) -> None:
    """Raises unless the data is a record of our schema that does not contradict itself."""
    where = f"record '{path.name}' in {path.parent}" if path else f"the record of {_cell_of(data)}"
    schema = data.get("schema") if isinstance(data, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise NewerRecord(
            f"{where} was written by a newer clipbench (schema {schema} > {SCHEMA}); it is left alone: "
            "update clipbench or name another results folder"
        )
    for error in _validator().iter_errors(data):
        place = ".".join(map(str, error.absolute_path)) or "top level"
        raise RecordError(f"{where} is not valid at {place}: {error.message[:200]}")
    for name, split in data["splits"].items():
        try:
            right = count_bits(split["bitmap"], split["total"])
        except RecordError as error:
            raise RecordError(f"{where} contradicts itself: split {name} has {error}") from error
        if right != split["correct"]:
            counts = f"counts {split['correct']} right, its bitmap {right}"
            raise RecordError(f"{where} contradicts itself: split {name} {counts}")


def _refuse_newer(path: Path) -> None:
    """Raises NewerRecord when the file that is to be replaced was written by a later clipbench."""
    try:
        read_record(path)
    except NewerRecord:
        raise
    except RecordError:
        return  # half-written or damaged: this is the rerun that mends it


def _cell_of(data: Any) -> Any:
    return data.get("cell") if isinstance(data, dict) else data


def _not_finite(text: str) -> float:
    raise ValueError(f"the number {text} is not finite")
