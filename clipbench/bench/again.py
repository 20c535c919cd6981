"""The cell of a record computed once more: is the outcome the same, image by image, and if not, what is other now?"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from clipbench.bench.acting import WITHOUT_EFFECT, acting
from clipbench.bench.environment import environment
from clipbench.bench.grid import Progress
from clipbench.bench.launchers import Inline
from clipbench.bench.plan import Plan, PlannedCell, make_plan
from clipbench.bench.stop import StopSignal
from clipbench.bench.trainer import on_cuda
from clipbench.errors import MethodError, RecordError
from clipbench.methods import METHODS, method_class, registered
from clipbench.methods.arguments import arguments_of
from clipbench.printable import printable, say
from clipbench.recipes.recipe import Recipe
from clipbench.recipes.recorded import check_config, request_of
from clipbench.records.cell import Record
from clipbench.records.correctness import unpack_bits
from clipbench.records.settings import flat
from clipbench.records.store import RecordStore

# of a row, not of an outcome
ROW = ("variant", "recipe_digest", "changed", "test_digest", "train_digest", "suite_digest", "selected_on")
MEASURED = ("epochs", "steps", *ROW)
MACHINE = ("finished", "started", "commit", "dirty", "threads")
AUGMENTATION = ("crop_scale", "crop_ratio", "flip")
WORDS = {
    "backbone_hash": "backbone (hash)", "split_hash": "data: split (hash)", "draw_digest": "data: draw (digest)",
    "files_digest": "data: files (digest)", "versions": "version of", "code": "code of", "class_path": "class",
    "start": "what it starts from:",
}  # fmt: skip


def compute_again(
    records: Sequence[Record],
    results: Path | None = None,
    recipe: Recipe | None = None,
    root: str | None = None,
    dry_run: bool = False,
    console: Console | None = None,
) -> int:
    """Computes the cell of each record again, and prints whether the outcome is equal.

    Args:
        records: with their configs.
        results: the folder of all runs for the new records; None: they are not kept.
        recipe: the recipe of a method of one's own.
        root: where the real datasets lie.
        dry_run: only say what is other now.
        console: where to print.

    Returns:
        0 where every outcome is equal: counts and bitmaps of every split, and the learned weights where the record
        knows them; else 1.

    Raises:
        ClipbenchError: a record cannot be computed again, or data are missing.
    """
    console = console or Console()
    equal = 0
    with nullcontext(results) if results else tempfile.TemporaryDirectory(prefix="clipbench-") as folder:
        for record in records:
            record = in_todays_words(record, recipe)
            plan, planned = plan_again(record, Path(str(folder)), root)
            say(console, f"{record.cell}: record {record.key[:12]} of {record.finished or 'an unknown time'}")
            for reason in others(record, planned):
                say(console, f"  other now: {reason}")
            if dry_run:
                continue
            found = _computed(record, plan, planned, console)
            lines, same = compared(record, found)
            for line in lines:
                say(console, f"  {line}")
            say(console, f"  {'equal' if same else 'NOT equal'}: {record.cell}")
            equal += same
    if dry_run:
        return 0
    if len(records) > 1:
        say(console, f"{equal} of {len(records)} cells are equal")
    return 0 if equal == len(records) else 1


def in_todays_words(record: Record, recipe: Recipe | None = None) -> Record:
    """A record with the class and the arguments of its method as they are called now.

    Settings that nothing read, and that are refused today, are left out.

    Args:
        record: of this or an earlier version.
        recipe: the recipe of a method of one's own.

    Raises:
        RecordError: it is of a failure.
        ClipbenchError: its method is not there.
    """
    if not record.ok:
        raise RecordError(f"{record.cell} failed ({record.error}): there is no outcome to compare with")
    check_config(record, recipe)
    kind = _class_of(record, recipe)
    arguments = arguments_of(kind, record.data["config"]["model"].get("init_args", {}))
    name = kind.__name__ if kind.__name__ in METHODS else f"{kind.__module__}.{kind.__qualname__}"
    trainer = {  # a null may be a setting that a later trainer has no more; the others could only write files
        key: value for key, value in record.data["config"].get("trainer", {}).items()
        if value is not None and key not in WITHOUT_EFFECT
    }  # fmt: skip
    config = record.data["config"] | {"model": {"class_path": name, "init_args": arguments}, "trainer": trainer}
    return dataclasses.replace(record, data=record.data | {"config": config})


def plan_again(record: Record, results: Path, root: str | None = None) -> tuple[Plan, PlannedCell]:
    """The plan for the cell of a record, and that cell in it.

    Args:
        record: in today's words.
        results: the folder of all runs.
        root: where the real datasets lie.

    Raises:
        RecordError: the record lies where the new one would.
        ClipbenchError: the cell cannot be planned.
    """
    plan = make_plan(request_of(record, root), results, exactly=True)
    planned = next(one for one in plan.cells if one.cell.recipe == record.cell.recipe)
    there = RecordStore(plan.folder).path_for(planned.cell, planned.key)
    if record.path is not None and there.exists() and there.samefile(record.path):
        raise RecordError(f"'{there.name}' lies in {there.parent} itself: name another folder with --results, or none")
    if planned.key == record.key:  # the same cell stands in the same row
        row = {name: record.provenance[name] for name in ROW if name in record.provenance}
        rest = {name: value for name, value in planned.provenance.items() if name not in ROW}
        named = dataclasses.replace(planned, provenance=rest | row)
        plan = dataclasses.replace(plan, cells=[named if one is planned else one for one in plan.cells])
        planned = named
    return plan, planned


def _class_of(record: Record, recipe: Recipe | None) -> type:
    """The class of a record's method; a name in a file is never imported, one in the user's recipe is."""
    stated = str(record.data["config"]["model"]["class_path"])
    if recipe is not None:
        kind = method_class(str(recipe.sections["model"]["class_path"]))
        if kind.__name__ != stated.rpartition(".")[2]:
            raise RecordError(f"the record of {record.cell} is of {stated}; recipe '{recipe.name}' is {recipe.method}")
        return kind
    module, _, name = stated.rpartition(".")
    if name in METHODS and module.partition(".")[0] == "clipbench":  # it may have moved inside the package
        return method_class(name)
    known = {place.replace(":", "."): short for short, place in registered().items()}
    if stated not in known:
        raise MethodError(
            f"the record of {record.cell} is of '{printable(stated)}', which is not installed here; a file of data "
            "runs no code: name its recipe, as --method own.yaml"
        )
    return method_class(known[stated])


def others(record: Record, planned: PlannedCell) -> list[str]:
    """What is other now than it was for the record and may move numbers, a line each; settings first."""
    was, now = _settings(record.data["config"]), _settings(planned.resolved)
    lines = _changes("setting", was, {name: value for name, value in now.items() if value is not None or name in was})
    before, after = record.provenance, json.loads(json.dumps(planned.provenance))  # tuples as lists
    for name in sorted(after.keys() - set(MEASURED)):
        if name == "class_path" and name not in before:
            continue  # an earlier version: the config says it, and it was found by that
        lines += _difference(name, before.get(name, {} if isinstance(after[name], dict) else None), after[name])
    here = environment(on_cuda(planned.resolved["trainer"]))
    if not lines and planned.key != record.key and "variant" in before:  # earlier ones had other keys
        lines.append(f"key {planned.key[:12]}, was {record.key[:12]}; nothing else that the record states differs")
    known = {name: value for name, value in record.data["environment"].items() if name not in MACHINE}
    return lines + _changes("", known, {name: here.get(name) for name in known})


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What may act, dotted; the method's class stands in the provenance, seeds and places in the cell."""
    shown = acting({"trainer": {}, **config})
    beside = ("class_path", *(f"data.{name}" for name in AUGMENTATION))  # they stand in the provenance as they acted
    return {name: value for name, value in shown.items() if not name.endswith(beside)}


def _difference(name: str, was: Any, now: Any) -> list[str]:
    word = WORDS.get(name, name)
    if was is None:
        return [f"{word} {_short(now)}, where the record says nothing"]
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        return _changes(word, flat(was), flat(now))
    return _changes("", {word: was}, {word: now})


def _changes(kind: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line for each value that differs: `setting model.lr 0.1, was 0.2`."""
    return [
        f"{kind} {name} {_short(now[name]) if name in now else 'is not there'}, "
        f"was {_short(was[name]) if name in was else 'not there'}".strip()
        for name in sorted(was.keys() | now.keys())
        if was.get(name) != now.get(name)
    ]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    digest = len(text) >= 16 and all(letter in "0123456789abcdef" for letter in text)
    return text[:12] if digest else text if len(text) <= 60 else f"{text[:57]}..."


def _computed(record: Record, plan: Plan, planned: PlannedCell, console: Console) -> Record:
    """The new record of a cell, and before it of those that it starts from.

    Raises:
        RecordError: it failed, or another process is at it.
    """
    progress = Progress(console, len(plan.to_run), StopSignal())
    if not plan.to_run:
        say(console, f"  done already in {plan.folder}")
    RecordStore(plan.folder).check_writable()
    with progress.stop, _threads(record.data["environment"].get("threads")):
        Inline(1).run(plan.to_run, plan.folder, progress.done, progress.say)
    found = RecordStore(plan.folder).find(planned.cell, planned.key)
    if found is None:
        why = RecordStore(plan.folder).why_undone(planned.cell, planned.key)
        raise RecordError(f"{planned.cell} could not be computed again: {why}")
    return found


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """As many threads as the record was computed with, since sums follow them."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def compared(record: Record, found: Record) -> tuple[list[str], bool]:
    """A line for each split and for what was learned, and whether all of it is equal."""
    lines, same = [], True
    for name in dict.fromkeys([*record.splits, *found.splits]):
        if name not in record.splits or name not in found.splits:
            lines.append(f"{name}: only in {'the record' if name in record.splits else 'the new one'}")
            same = False
            continue
        was, now = record.splits[name], found.splits[name]
        text = f"{name} {found.accuracy(name):.2f} %, {now['correct']} of {now['total']}"
        if (was["correct"], was["total"], was["bitmap"]) == (now["correct"], now["total"], now["bitmap"]):
            lines.append(f"{text}: the same, image by image")
            continue
        same = False
        lines.append(f"{text}; was {record.accuracy(name):.2f} %, {was['correct']} of {was['total']}{_moved(was, now)}")
    if record.data.get("joint") and found.data.get("joint"):  # older records have none
        equal = record.data["joint"] == found.data["joint"]
        lines.append(f"over all classes at once: {'the same, image by image' if equal else 'other answers'}")
        same &= equal
    digests = [one.data.get("weights", {}).get("sha256") for one in (record, found)]
    if all(digests):
        same &= digests[0] == digests[1]
        lines.append(f"learned weights: {'the same' if digests[0] == digests[1] else 'other bytes'}")
    elif record.cost.get("stored_bytes"):
        lines.append("learned weights: the record keeps no digest of them, they were not compared")
    return lines, same


def _moved(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    if was["total"] != now["total"]:
        return ""
    differ = unpack_bits(was["bitmap"], was["total"]) != unpack_bits(now["bitmap"], now["total"])
    return f"; {int(differ.sum())} images are answered otherwise"
