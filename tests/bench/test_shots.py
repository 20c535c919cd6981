"""A grid of several numbers of shots: its cells are those of one grid for each, in the plan, its lines and estimate."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

from rich.console import Console

from clipbench.bench.grid import Progress, headline
from clipbench.bench.plan import Plan, estimate, make_plan
from clipbench.bench.run import Outcome
from clipbench.bench.stop import StopSignal
from clipbench.recipes.recipe import load_recipe
from clipbench.recipes.request import Request
from clipbench.recipes.suites import load_suite
from clipbench.records.cell import Record
from clipbench.records.store import write_record
from tests.records.records import cell, record


def planned(results: Path, shots: int, *more: int, **changes: Any) -> Plan:
    recipes = tuple(load_recipe(name) for name in ("wise_ft", "zero_shot"))
    grid: dict[str, Any] = {"datasets": ("dtd", "eurosat"), "seeds": (1, 2), "protocol": "few_shot"} | changes
    return make_plan(Request(recipes, load_suite("mini"), shots=shots, more_shots=more, **grid), results)


def test_cells_and_keys_are_those_of_one_grid_for_each_number(tmp_path: Path) -> None:
    together = planned(tmp_path, 1, 4)
    apart = [one for shots in (1, 4) for one in planned(tmp_path, shots).cells]
    assert {one.cell: one.key for one in together.cells} == {one.cell: one.key for one in apart}
    assert len(together.cells) == 2 * 2 * 2 * 3, "two recipes and the one that WiSE-FT starts from"
    seen: set[str] = set()
    for one in together.cells:
        assert one.start is None or (one.start.key in seen and one.start.cell.shots == one.cell.shots)
        seen.add(one.key)


def test_the_headline_and_the_lines_of_progress_say_the_shots(tmp_path: Path) -> None:
    plan = planned(tmp_path, 1, 4, seeds=(1,))
    assert "few_shot, 1, 4 shots, 2 recipes x 2 numbers of shots x 2 datasets x 1 seed = 8 cells" in headline(plan)
    assert "few_shot, 4 shots, 2 recipes x 2 datasets x 1 seed = 4 cells" in headline(planned(tmp_path, 4, seeds=(1,)))
    console = Console(file=io.StringIO(), width=100)
    done = Outcome(plan.cells[0], Record(record(plan.cells[0].cell)))
    for several in (True, False):
        Progress(console, 8, StopSignal(), several).done(done)
    said = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert ["1 shots seed 1" in line for line in said] == [True, False]


def test_times_of_the_same_shots_come_first_in_an_estimate(tmp_path: Path) -> None:
    plan = planned(tmp_path, 1, 4, seeds=(1,), datasets=("dtd",))
    only = dataclasses.replace(plan, cells=[one for one in plan.cells if one.cell.recipe == "zero_shot"])
    assert estimate(only) is None
    for shots, dataset, seconds in ((1, "dtd", 2.0), (4, "eurosat", 30.0)):
        of = cell(recipe="zero_shot", dataset=dataset, shots=shots, protocol="few_shot")
        write_record(plan.folder, record(of, cost={"total_seconds": seconds}))
    assert estimate(only) == 2.0 + 30.0
    further = dataclasses.replace(only, cells=[planned(tmp_path, 16, seeds=(1,), datasets=("dtd",)).cells[-1]])
    assert estimate(further) == 2.0, "without one of these shots, that of the same dataset"
