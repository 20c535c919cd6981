"""A CSV manifest `path,label,classname,split[,draws]`: one image a line, any layout of files."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from pathlib import Path

from clipbench.data.cards import Card
from clipbench.data.paths import absent, few
from clipbench.data.splits import PARTS, Item, Split
from clipbench.errors import DataError

COLUMNS = ("path", "label", "classname", "split")


def read(card: Card, root: Path, splits_dir: Path | None = None) -> Split:
    """The split of a card whose `split_file` is a manifest; `splits_dir` may hold it elsewhere, without images.

    Raises:
        DataError: when the manifest is missing or not right, or names images that are not there.
    """
    path = (card.folder_in(root) if splits_dir is None else splits_dir) / (card.split_file or "manifest.csv")
    split, _ = read_manifest(path, card.image_dir(root) if splits_dir is None else None)
    return split


def read_manifest(path: Path, image_dir: Path | None) -> tuple[Split, tuple[str, ...]]:
    """A manifest's split, in file order, and its class names in label order.

    Column `draws` holds seeds separated by blanks: where a seed occurs, the images marked with it are its draw.

    Args:
        path: the CSV file, UTF-8, first line = column names; other columns are ignored.
        image_dir: the folder that the paths are relative to; None looks for no image.

    Raises:
        DataError: everything that is wrong, in one message.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"there is no manifest {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the manifest {path} cannot be read: {error}") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    lacking = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if lacking:
        raise DataError(
            f"the manifest {path} has no column {', '.join(lacking)}; its first line must name "
            f"{','.join(COLUMNS)}[,draws] and is '{','.join(reader.fieldnames or ())}'"
        )
    rows = _Rows()
    faults = [f"line {reader.line_num}: {fault}" for row in reader if (fault := rows.take(row, reader.line_num))]
    faults += rows.label_faults()
    if image_dir is not None:
        missing, _ = absent(image_dir, rows.lines)
        faults += [f"{len(missing)} images do not exist below {image_dir}: {few(missing)}"] if missing else []
    if faults:
        shown = "; ".join(faults[:10]) + (f"; and {len(faults) - 10} more" if len(faults) > 10 else "")
        raise DataError(f"the manifest {path} is not right: {shown}")
    marks = {seed: (tuple(found["train"]), tuple(found["val"])) for seed, found in sorted(rows.marks.items())}
    return Split.of(rows.parts, marks), tuple(rows.names[label] for label in sorted(rows.names))


class _Rows:
    """The lines taken in so far."""

    def __init__(self) -> None:
        self.parts: dict[str, list[Item]] = {part: [] for part in PARTS}
        self.marks: dict[int, dict[str, list[int]]] = defaultdict(lambda: {"train": [], "val": []})
        self.lines: dict[str, int] = {}
        self.names: dict[int, str] = {}

    def take(self, row: dict[str, str], line: int) -> str | None:
        """Takes one line in; returns what is wrong with it."""
        path, name, part = (str(row[column] or "").strip() for column in ("path", "classname", "split"))
        if not path or not name:
            return "path and classname must not be empty"
        if part not in PARTS:
            return f"split is '{part}', must be train, val or test"
        try:
            label = int(row["label"])
        except (TypeError, ValueError):
            return f"label '{row['label']}' is not a whole number"
        if label < 0:
            return f"label {label} is negative"
        if path in self.lines:
            return f"{path} stands already in line {self.lines[path]}"
        self.lines[path] = line
        if self.names.setdefault(label, name) != name:
            return f"label {label} is '{name}' here and '{self.names[label]}' before"
        seeds = str(row.get("draws") or "").split()
        if seeds and part == "test":
            return "a test image cannot be part of a draw"
        try:
            for seed in sorted({int(seed) for seed in seeds}):
                self.marks[seed][part].append(len(self.parts[part]))
        except ValueError:
            return f"draws '{row['draws']}' must be whole numbers separated by blanks"
        self.parts[part].append(Item(path, label, name))
        return None

    def label_faults(self) -> list[str]:
        """What is wrong with the labels as a whole."""
        if len(self.names) < 2:
            return [f"{len(self.names)} classes; at least two are needed"]
        faults = []
        gaps = sorted(set(range(max(self.names) + 1)) - set(self.names))
        if gaps:
            faults.append(f"labels must be 0..{len(self.names) - 1} without gaps, but {few(gaps)} are missing")
        trained = {item.label for item in self.parts["train"]}
        if trained and trained != set(self.names):
            without = [self.names[label] for label in sorted(set(self.names) - trained)]
            faults.append(f"{len(without)} classes have no train image: {few(without)}")
        return faults
