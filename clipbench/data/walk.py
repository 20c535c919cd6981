"""The images below a folder: what is read, what is passed over and why; `fit` and `predict` see the same files.

Links are followed, but not back to a folder above them. Hidden files, and what systems leave behind, are passed over
without a word; all else that is not read is listed.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from clipbench.data.paths import IMAGE_SUFFIXES, few
from clipbench.regular_files import KINDS, reason

LEFT_BEHIND = frozenset(("__MACOSX", "Thumbs.db", "ehthumbs.db", "desktop.ini", "@eaDir", "$RECYCLE.BIN"))
TO_CONVERT = frozenset(
    (".heic", ".heif", ".jxl", ".jp2", ".psd", ".svg", ".ico", ".tga", ".dng", ".nef", ".cr2", ".arw")
)
Identity = tuple[int, int]


@dataclass
class Found:
    """What lies below a folder; paths are relative to it, slash-separated, sorted.

    Attributes:
        images: the files with the ending of an image, and what each of them is on the disk, whatever links lead to it.
        others: files with another ending.
        loops: links that lead back to a folder above them.
        faults: what cannot be read, one sentence each.
    """

    images: dict[str, Identity] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def passed_over(name: str) -> bool:
    """Whether a file or folder is hidden, or one that systems leave behind."""
    return name.startswith(".") or name in LEFT_BEHIND


def has_ending(name: str) -> bool:
    """Whether a file is taken for an image."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def find_images(folder: Path) -> Found:
    """Image files (by ending) at any depth below a folder, and what else there is."""
    found, images = Found(), []
    upward = [_identity(place.stat()) for place in (folder, *folder.absolute().parents, *folder.resolve().parents)]
    places = [("", tuple(upward))]  # each with what lies above it, to know a link that leads back
    while places:
        prefix, above = places.pop()
        try:
            with os.scandir(folder / prefix) as listed:
                entries = list(listed)
        except OSError as error:
            found.faults.append(f"{folder / prefix}: {reason(folder / prefix, error)}")
            continue
        for entry in entries:
            path = prefix + entry.name
            if passed_over(entry.name):
                continue
            if not is_text(entry.name):
                found.faults.append(f"{shown(str(folder / path))}: its name is not UTF-8; rename it")
                continue
            try:
                status = os.stat(folder / path)
            except OSError as error:
                found.faults.append(f"{folder / path}: {reason(folder / path, error)}")
                continue
            kind = stat.S_IFMT(status.st_mode)
            if kind == stat.S_IFDIR:
                if _identity(status) in above:
                    found.loops.append(path)
                else:
                    places.append((path + "/", (*above, _identity(status))))
            elif not has_ending(entry.name):
                found.others.append(path)
            elif kind != stat.S_IFREG:
                found.faults.append(f"{folder / path}: {KINDS.get(kind, 'something else')}, not a file")
            else:
                images.append((path, _identity(status)))
    found.images = dict(sorted(images))
    for listing in (found.others, found.loops, found.faults):
        listing.sort()
    return found


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino


def is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8, as split files and records are."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(name: str) -> str:
    """A name that can be printed."""
    return name.encode(errors="replace").decode()


def locate(folder: Path, paths: Iterable[str]) -> tuple[dict[str, Identity], list[str], list[str]]:
    """Which files some paths lead to; folders are listed once each, not asked file by file.

    Args:
        folder: what the paths are relative to.
        paths: slash-separated paths.

    Returns:
        What each path is on the disk; those that lead to nothing, with the name that is there in another case or
        Unicode form; those that lead to a folder, pipe or the like, with what it is.
    """
    wanted: dict[str, dict[str, str]] = defaultdict(dict)
    for path in paths:
        below, _, name = path.rpartition("/")
        wanted[below + "/" if path.startswith("/") else below][name] = path
    found: dict[str, Identity] = {}
    missing, odd = [], []
    for below, names in wanted.items():
        others: dict[str, str] = {}
        there: dict[str, Identity | str] = {}
        try:
            with os.scandir(folder / below) as entries:
                device = os.stat(folder / below).st_dev
                for entry in entries:
                    others[_folded(entry.name)] = entry.name
                    if entry.name not in names:
                        continue
                    if entry.is_file(follow_symlinks=False):
                        there[entry.name] = device, entry.inode()
                    else:
                        there[entry.name] = _followed(entry)
        except (OSError, ValueError):  # no such folder, or one that cannot be read: all its files are missing
            pass
        for name, path in names.items():
            place = there.get(name, "")
            if isinstance(place, tuple):
                found[path] = place
            elif place:
                odd.append(f"{path}: {place}")
            else:
                near = others.get(_folded(name))
                missing.append(path + ("" if near is None else f" (there it is {near!a})"))
    return found, sorted(missing), sorted(odd)


def _followed(entry: os.DirEntry[str]) -> Identity | str:
    """What a link leads to, or what an entry is that is no file."""
    try:
        status = entry.stat()
    except OSError as error:
        return reason(entry.path, error)
    kind = stat.S_IFMT(status.st_mode)
    return _identity(status) if kind == stat.S_IFREG else f"{KINDS.get(kind, 'something else')}, not a file"


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def same_file(paths: Mapping[str, Identity]) -> list[list[str]]:
    """Groups of paths that lead to one file, by links or otherwise."""
    groups: dict[Identity, list[str]] = {}
    for path, identity in paths.items():
        if identity[1]:  # some network disks number no file
            groups.setdefault(identity, []).append(path)
    return [group for group in groups.values() if len(group) > 1]


def passed_over_notes(found: Found) -> list[str]:
    """What to say about what was passed over below a folder; one sentence a kind."""
    loops = f"{len(found.loops)} links lead back to a folder above them and are not followed: {few(found.loops, 3)}"
    return [*unread(found.others), *([loops] if found.loops else [])]


def unread(others: Sequence[str]) -> list[str]:
    """What to say about files that are not read: how many of which ending, some names, and what to do.

    Example:
        >>> unread(["cat/1.heic", "cat/2.heic", "notes.txt"])
        ['3 files are not read (2 .heic, 1 .txt): cat/1.heic, cat/2.heic, notes.txt; .heic must be converted first']
    """
    if not others:
        return []
    endings = Counter(PurePosixPath(path).suffix.lower() or "without an ending" for path in others)
    counts = few([f"{number:,} {ending}" for ending, number in endings.most_common()], 6)
    convert = sorted(TO_CONVERT & set(endings))
    first = sorted(others, key=lambda path: PurePosixPath(path).suffix.lower() not in TO_CONVERT)
    said = f"{len(others):,} files are not read ({counts}): {few(first, 3)}"
    return [said + (f"; {', '.join(convert)} must be converted first" if convert else "")]
