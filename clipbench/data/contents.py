"""What image files hold: a digest of each and whether it can be opened, found once and remembered while it is the same.

A file is the same while size, times and number on the disk are: its content cannot change without its time of change,
whatever time of modification it is given. What was changed in the last seconds is not remembered, since the clock of a
disk may be coarse. What is remembered carries its own digest, and is no need: without it files are read again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from clipbench import atomic
from clipbench.data.decoding import check_content, check_header
from clipbench.data.opening import check_all
from clipbench.errors import RecordError
from clipbench.regular_files import open_regular, read_bytes, reason
from clipbench.resources import cache_dir

FORMAT = 2  # of the file in the cache, and of what counts as an image that can be opened
SETTLED = 2 * 10**9  # nanoseconds that a file must have been left alone
LARGEST_IMAGE, LARGEST_CACHE = 2**29, 2**30  # bytes
Stamp = tuple[int, int, int, int]
Entry = tuple[Stamp, str]  # what tells that the file is the same; its digest, "" where only its header was read

_in_memory: dict[Path, dict[str, Entry]] = {}  # of this process, by place


def look_at(
    folder: Path, paths: Iterable[str], name: str, whole: bool, opened: bool = True
) -> tuple[dict[str, str], list[str]]:
    """Digests of image files, and what is wrong with them.

    Args:
        folder: what the paths are relative to.
        paths: of the images.
        name: what they are, for lines of progress.
        whole: whether their content is read; else they only have to open.
        opened: whether any is opened at all; else they only have to be there.

    Returns:
        The digest of each file where the content is read; one line "path: reason" for each that cannot be used.
    """
    place = folder.resolve()
    known = _in_memory.get(place)
    known = _remembered(place) if known is None else known
    fresh: dict[str, Entry] = {}
    new, faults, digests = [], [], {}
    for path in dict.fromkeys(paths):
        try:
            stamp = _stamp(os.stat(folder / path))
        except OSError as error:
            faults.append(f"{folder / path}: {reason(folder / path, error)}")
            continue
        seen = known.get(path)
        if not opened and not whole:
            faults += [] if stamp[0] else [f"{folder / path}: the file is empty (0 bytes)"]
        elif seen is None or seen[0] != stamp or (whole and not seen[1]):
            new.append(path)
        else:
            digests[path] = seen[1]

    def check(chunk: Sequence[Path]) -> list[str]:
        bad = []
        for file in chunk:
            path = names[file]
            digest, fault, stamp = (_read if whole else _glance)(file)
            if fault:
                bad.append(fault)
                continue
            digests[path] = digest
            if stamp and stamp[2] < began - SETTLED:
                fresh[path] = stamp, digest
        return bad

    began, names = time.time_ns(), {folder / path: path for path in new}
    faults += check_all(list(names), name, check)
    _in_memory[place] = {**known, **fresh}
    if fresh:
        _remember(place, fresh)
    return digests if whole else {}, faults


def _glance(file: Path) -> tuple[str, str | None, Stamp | None]:
    """No digest; what is wrong with the header or the end of a file, and its stamp."""
    try:
        return "", check_header(file), _stamp(os.stat(file))
    except OSError as error:
        return "", f"{file}: {reason(file, error)}", None


def _read(file: Path) -> tuple[str, str | None, Stamp | None]:
    """Digest of a file, what is wrong with it, and its stamp where it did not change meanwhile."""
    try:
        with open_regular(file) as opened:
            before = _stamp(os.fstat(opened.fileno()))
            if before[0] > LARGEST_IMAGE:
                return "", f"{file}: {before[0] / 1e6:,.0f} MB; at most {LARGEST_IMAGE / 1e6:.0f} MB are read", None
            data = opened.read()
            after = _stamp(os.fstat(opened.fileno()))
    except OSError as error:
        return "", f"{file}: {reason(file, error)}", None
    return hashlib.sha256(data).hexdigest(), check_content(file, data), after if before == after else None


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _file(place: Path) -> Path:
    return cache_dir() / "contents" / f"{hashlib.sha256(os.fsencode(place)).hexdigest()[:24]}.json"


def _remembered(place: Path) -> dict[str, Entry]:
    """What an earlier process found; nothing where that is damaged or about another place."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        stored = json.loads(read_bytes(_file(place), LARGEST_CACHE))
        entries = stored["entries"]
        if stored["digest"] == _digest(place, entries):
            return {path: ((size, modified, changed, number), digest)
                    for path, (size, modified, changed, number, digest) in entries.items()}  # fmt: skip
    return {}


def _remember(place: Path, fresh: dict[str, Entry]) -> None:
    """Keeps what was found, beside what other processes have found by now."""
    entries = {path: [*stamp, digest] for path, (stamp, digest) in {**_remembered(place), **fresh}.items()}
    text = json.dumps({"digest": _digest(place, entries), "entries": entries})
    with contextlib.suppress(RecordError):
        atomic.write_text(_file(place), text)


def _digest(place: Path, entries: object) -> str:
    said = json.dumps([FORMAT, os.fspath(place), entries])
    return hashlib.sha256(said.encode(errors="surrogatepass")).hexdigest()
