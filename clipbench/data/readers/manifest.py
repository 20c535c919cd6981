"""A CSV manifest `path,label,classname,split[,draws]`: one image a line, any layout of files."""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from clipbench.data.card import Card
from clipbench.data.classnames import name_faults, normal
from clipbench.data.paths import few
from clipbench.data.splits import PARTS, Item, Split
from clipbench.data.walk import locate, same_file
from clipbench.errors import DataError
from clipbench.printable import printable
from clipbench.regular_files import Fault, read_bytes, reason

COLUMNS = ("path", "label", "classname", "split")
DRAWS = "draws"
DELIMITERS = ",;\t"  # spreadsheets of some countries write semicolons
LARGEST = 2**28  # bytes; a million lines have about 60 MB
NUMBER = re.compile(r"[0-9]{1,9}")
SHOWN = 10  # faults


def read(card: Card, root: Path, splits_dir: Path | None = None) -> Split:
    """The split of a card whose `split_file` is a manifest; `splits_dir` may hold it elsewhere, without images.

    Raises:
        DataError: when the manifest is missing or not right, or names images that are not there, or not below the
            folder of a card that stands in a file.
    """
    path = (card.folder_in(root) if splits_dir is None else splits_dir) / (card.split_file or "manifest.csv")
    image_dir = card.image_dir(root) if splits_dir is None else None
    return read_manifest(path, image_dir, inside=card.path is not None)[0]


def read_manifest(path: Path, image_dir: Path | None, inside: bool = False) -> tuple[Split, tuple[str, ...]]:
    """A manifest's split, in file order, and its class names in label order.

    Column `draws` holds seeds separated by blanks: where a seed occurs, the images marked with it are its draw.

    Args:
        path: the CSV file, UTF-8, first line = column names; other columns are ignored.
        image_dir: the folder that the paths are relative to; None looks for no image.
        inside: whether images must lie below that folder; a user's own manifest may name any place.

    Raises:
        DataError: everything that is wrong, in one message.
    """
    rows, faults = _Rows(inside), []
    for line, values in _lines(path, _text(path)):
        if fault := values if isinstance(values, str) else rows.take(line, *values):
            faults.append(f"line {line}: {fault}")
    faults += rows.label_faults()
    if image_dir is not None:
        faults += rows.file_faults(image_dir)
    if faults:
        shown = "; ".join(faults[:SHOWN]) + (f"; and {len(faults) - SHOWN:,} more" if len(faults) > SHOWN else "")
        raise DataError(f"the manifest {path} is not right: {printable(shown)}")
    marks = {seed: (tuple(found["train"]), tuple(found["val"])) for seed, found in sorted(rows.marks.items())}
    return Split.of(rows.parts, marks), tuple(rows.names[label] for label in sorted(rows.names))


def _text(path: Path) -> str:
    """The text of a manifest.

    Raises:
        DataError: it is missing, no file, too large, no CSV file at all, or not in UTF-8.
    """
    try:
        data = read_bytes(path, LARGEST)
    except FileNotFoundError as error:
        raise DataError(f"there is no manifest {path}") from error
    except Fault as error:
        raise DataError(f"the manifest {path} {error}") from error
    except (OSError, ValueError) as error:
        why = reason(path, error) if isinstance(error, OSError) else str(error)
        raise DataError(f"the manifest {path} cannot be read: {why}") from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data:
        raise DataError(f"the manifest {path} is no text in UTF-8, perhaps UTF-16: save it as UTF-8")
    if data.lstrip()[:1] == b"<":
        raise DataError(f"the manifest {path} is a web page (HTML or XML), not a table: get the file itself")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, wrong = data[: error.start].count(b"\n") + 1, data[error.start]
        raise DataError(
            f"the manifest {path} is not UTF-8: line {line} holds the byte 0x{wrong:02x}; save it as UTF-8 "
            "('CSV UTF-8' in spreadsheets)"
        ) from error


def _lines(path: Path, text: str) -> Iterator[tuple[int, list[str] | str]]:
    """Number of each line with its path, label, class name, split and draws, or with what is wrong with it.

    Raises:
        DataError: the first line does not name the columns.
    """
    first = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(path, header)
        places = [header.index(name) for name in COLUMNS]
        places.append(header.index(DRAWS) if DRAWS in header else len(header))
        lacking = [""] * (len(header) + 1)
        for values in reader:
            if not values:
                continue
            if len(values) > len(header):
                yield (
                    reader.line_num,
                    (f"{len(values)} values for {len(header)} columns; a value with '{delimiter}' in it needs quotes"),
                )
                continue
            values += lacking[len(values) :]
            yield reader.line_num, [values[place].strip() for place in places]
    except csv.Error as error:
        raise DataError(f"the manifest {path} is not right: line {reader.line_num}: {error}") from error


def _check_header(path: Path, header: Sequence[str]) -> None:
    wanted = f"its first line must name {','.join(COLUMNS)}[,{DRAWS}] and is '{printable(','.join(header))[:200]}'"
    if lacking := [name for name in COLUMNS if name not in header]:
        raise DataError(f"the manifest {path} has no column {', '.join(lacking)}; {wanted}")
    if twice := [name for name in (*COLUMNS, DRAWS) if header.count(name) > 1]:
        raise DataError(f"the manifest {path} has the column {', '.join(twice)} twice; {wanted}")
    for name in header:  # other columns are the user's matter, but not one that was meant to be read
        if name != DRAWS and difflib.get_close_matches(name.lower(), [DRAWS], 1, 0.8):
            raise DataError(f"the manifest {path} has a column '{name}'; did you mean '{DRAWS}'?")


class _Rows:
    """The lines taken in so far."""

    def __init__(self, inside: bool) -> None:
        self.inside = inside
        self.parts: dict[str, list[Item]] = {part: [] for part in PARTS}
        self.marks: dict[int, dict[str, list[int]]] = defaultdict(lambda: {"train": [], "val": []})
        self.lines: dict[str, int] = {}
        self.names: dict[int, str] = {}
        self.first: dict[int, int] = {}

    def take(self, line: int, path: str, label_text: str, classname: str, part: str, draws: str) -> str | None:
        """Takes one line in; returns what is wrong with it."""
        name = normal(classname)
        if not path or not name:
            return "path and classname must not be empty"
        if part not in PARTS:
            near = [known for known in PARTS if part.lower().startswith(known)]
            return f"split is '{part}', must be train, val or test" + (f"; did you mean '{near[0]}'?" if near else "")
        if not NUMBER.fullmatch(label_text):
            if re.fullmatch(r"-[0-9]+", label_text):
                return f"label {label_text} is negative"
            return f"label '{label_text}' is not a whole number" + (" below a billion" if label_text.isdigit() else "")
        if self.inside and not _is_inside(path):
            return f"the path '{path}' leaves the folder of the images"
        if path in self.lines:
            return f"{path} stands already in line {self.lines[path]}"
        self.lines[path] = line
        label = int(label_text)
        self.first.setdefault(label, line)
        if self.names.setdefault(label, name) != name:
            return f"label {label} is '{name}' here and '{self.names[label]}' before"
        seeds = draws.split()
        if seeds and part == "test":
            return "a test image cannot be part of a draw"
        if not all(NUMBER.fullmatch(seed) for seed in seeds):
            return f"draws '{draws}' must be whole numbers separated by blanks"
        for seed in sorted({int(seed) for seed in seeds}):
            self.marks[seed][part].append(len(self.parts[part]))
        self.parts[part].append(Item(path, label, name))
        return None

    def label_faults(self) -> list[str]:
        """What is wrong with labels and class names as a whole."""
        number = len(self.names)
        if number < 2:
            return [f"{number} classes; at least two are needed"]
        faults = []
        if outside := sorted(label for label in self.names if label >= number):
            gaps = [label for label in range(number) if label not in self.names]
            where = few([f"{label} (line {self.first[label]})" for label in outside], 3)
            faults.append(
                f"labels must be 0..{number - 1} without gaps, but {few(gaps)} are missing and there is {where}"
            )
        trained = {item.label for item in self.parts["train"]}
        if trained and trained != set(self.names):
            without = [self.names[label] for label in sorted(set(self.names) - trained)]
            faults.append(f"{len(without)} classes have no train image: {few(without)}")
        return faults + name_faults([self.names[label] for label in sorted(self.names)])

    def file_faults(self, image_dir: Path) -> list[str]:
        """Images that are not there, are no files, or stand there under two paths."""
        found, missing, odd = locate(image_dir, self.lines)
        faults = [f"{len(missing)} images do not exist below {image_dir}: {few(missing)}"] if missing else []
        if any("\\" in path for path in missing):
            faults.append("folders are separated by '/' in paths, not by a backslash")
        for group in same_file(found)[:SHOWN]:
            where = " and ".join(f"{path} (line {self.lines[path]})" for path in group[:3])
            faults.append(f"{len(group)} lines name the same file: {where}")
        return faults + odd


def _is_inside(path: str) -> bool:
    return not PurePosixPath(path).is_absolute() and ".." not in PurePosixPath(path).parts
