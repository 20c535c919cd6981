"""Records of the whole grid as one small file a recipe: packed from a results folder, unpacked, compared with another.

    python -m tools.records pack results/runs/mini/base_to_novel results/mini/records
    python -m tools.records unpack results/mini/records results/runs/mini/base_to_novel
    python -m tools.records compare results/mini/records results/runs/mini/base_to_novel

What must not move between two versions of the code are the counts and which images were right; keys follow names and
settings, times the machine. A GEMM differs by the instruction set of the processor, so both sides must be of one kind.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clipbench.records.cell import Record
from clipbench.records.packed import read_records, write_packed
from clipbench.records.store import RecordStore, write_record

Cell = tuple[str, str, int]


def read(place: Path) -> Iterator[Record]:
    """The records of a folder of packed files, or of a results folder."""
    packed = sorted(place.glob("*.jsonl.gz"))
    for file in packed:
        yield from read_records(file)
    if not packed:
        yield from RecordStore(place).all()


def pack(source: Path, target: Path) -> None:
    """Write one `<recipe>.jsonl.gz` a recipe, a record a line, by dataset and seed; equal records, equal bytes."""
    recipes: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in read(source):
        recipes[record.cell.recipe].append(record.data)
    for recipe, records in recipes.items():
        write_packed(target / f"{recipe}.jsonl.gz", records)
    print(f"{sum(map(len, recipes.values()))} records of {len(recipes)} recipes in {target}")


def unpack(source: Path, target: Path) -> None:
    """Write each record as a file of its own, as a bench does, for `clipbench table`."""
    records = [*read(source)]
    for record in records:
        write_record(target, record.data)
    print(f"{len(records)} records in {target}")


def outcomes(place: Path) -> dict[Cell, dict[str, tuple[int, int, str]]]:
    """Recipe, dataset and seed to the counts and the bitmap of every test split."""
    found = {}
    for record in read(place):
        splits = {name: (s["correct"], s["total"], s["bitmap"]) for name, s in record.splits.items()}
        found[record.cell.recipe, record.cell.dataset, record.cell.seed] = splits
    return found


def compare(before: Path, now: Path) -> int:
    """Print which cells differ; 0 when every cell that both have is the same, image by image."""
    old, new = outcomes(before), outcomes(now)
    both = sorted(old.keys() & new.keys())
    differ = [cell for cell in both if old[cell] != new[cell]]
    for cell in differ:
        shown = [f"{name} {old[cell][name][0]} -> {new[cell].get(name, ('none',))[0]}" for name in old[cell]]
        print(*cell, *shown)
    print(
        f"{len(both)} cells compared, {len(differ)} differ; {len(old) - len(both)} + {len(new) - len(both)} unmatched"
    )
    return 1 if differ or not both else 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["pack", "unpack", "compare"])
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    options = parser.parse_args(arguments)
    if options.what != "compare":
        (pack if options.what == "pack" else unpack)(options.first, options.second)
        return 0
    return compare(options.first, options.second)


if __name__ == "__main__":
    sys.exit(main())
