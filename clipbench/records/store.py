"""Records on disk: one JSON file per cell, whole or not at all, and the store that says which cells are done."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from clipbench.atomic import cannot_write, check_writable, remove_left_over, replacing, write_bytes, write_text
from clipbench.errors import RecordError
from clipbench.printable import printable
from clipbench.records.cell import Cell, Record, comparable, content_key
from clipbench.records.correctness import pack_bits, unpack_bits
from clipbench.records.learned import why_not_left
from clipbench.records.reading import SCHEMA, NewerRecord, parse_record, read_record
from clipbench.regular_files import kind_of

NO_RECORD, FAILED = "no record yet", "failed before"  # why a cell is undone

__all__ = [
    "FAILED",
    "NO_RECORD",
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


def run_folder(root: Path | str, suite: str, protocol: str) -> Path:
    """The folder of one leaderboard below the results: `<root>/<suite>/<protocol>`.

    Raises:
        RecordError: a name would lead out of the results.
    """
    for name in (suite, protocol):
        if name in ("", ".", "..") or "\0" in name or len(PurePath(name).parts) != 1 or PurePath(name).is_absolute():
            raise RecordError(f"'{printable(name)}' is no name of a folder in the results")
    return Path(root) / suite / protocol


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
    where = f"the record of {data.get('cell')}"
    try:
        content = (json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise RecordError(f"{where} is not finite plain data: {error}") from error
    parse_record(content, where)
    path = RecordStore(folder).path_for(Cell.from_dict(data["cell"]), data["key"])
    if path.exists():
        _refuse_newer(path)
    return write_bytes(path, content)


class Scan(NamedTuple):
    """What lies in a run folder: the records that can be read, and a sentence for each file that cannot."""

    records: list[Record]
    problems: list[str]


class RecordStore:
    """The records and learned weights of one run folder (`<results>/<suite>/<protocol>`).

    A cell is done when its record parses, its status is ok, its cell and key match, and its learned weights (where some
    were stored) lie beside it as it left them. Anything else is run again.
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
            RecordError: a folder, a pipe or a device stands where the record or the learned weights belong.
        """
        found = self._look(cell, key)
        return found if isinstance(found, Record) else None

    def why_undone(self, cell: Cell, key: str) -> str | None:
        """Why the cell has to be run, in a few words, or None when it is done.

        Raises:
            RecordError: see `find`.
        """
        found = self._look(cell, key)
        return None if isinstance(found, Record) else found

    def _look(self, cell: Cell, key: str) -> Record | str:
        path, weights = self.path_for(cell, key), self.weights_for(cell, key)
        for file in (path, weights):
            if file.exists() and (kind := kind_of(file)):
                raise RecordError(f"'{file.name}' in {file.parent} is {kind} where a file belongs; move it away")
        if not path.exists():
            return NO_RECORD
        try:
            record = read_record(path)
        except NewerRecord:
            raise
        except RecordError as error:
            return str(error)
        if record.cell != cell or record.key != key:
            return f"record '{path.name}' is of another cell or key"
        if not record.ok:
            return f"{FAILED} ({record.error})"
        stored, left = record.cost.get("stored_bytes"), record.data.get("weights") or {}
        why = why_not_left(weights, stored, left.get("sha256")) if stored else None
        return why or record

    def scan(self) -> Scan:
        """All records, in order of file names, with the files that cannot be read named one by one.

        Raises:
            RecordError: the folder of records cannot be read, or is none.
        """
        folder = self.folder / "records"
        try:
            paths = sorted(path for path in folder.iterdir() if path.name.endswith(".json"))
        except FileNotFoundError:
            return Scan([], [])
        except OSError as error:
            raise RecordError(f"the records in {self.folder} cannot be read ({error.strerror or error})") from error
        records, problems = [], []
        for path in paths:
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

    def check_place(self) -> None:
        """Refuses a folder that can neither be there nor be made, without making anything.

        Raises:
            RecordError: its name is too long, a file stands in its way, or it is behind a loop of links.
        """
        records = self.folder / "records"
        try:
            records.stat()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise cannot_write(records, error) from error

    def check_writable(self) -> None:
        """Finds out before any work starts whether records can be written; what killed runs left half-written goes.

        Raises:
            RecordError: the folder is read-only or full.
        """
        check_writable(self.folder / "records")
        remove_left_over(self.folder)

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


def _refuse_newer(path: Path) -> None:
    """Raises NewerRecord when the file that is to be replaced was written by a later clipbench."""
    try:
        read_record(path)
    except NewerRecord:
        raise
    except RecordError:
        return  # half-written or damaged: this is the rerun that mends it
