"""Many cells in one process: what a cell built is gone after it."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import pytest

from clipbench.bench import run
from clipbench.bench.plan import make_plan
from clipbench.recipes.recipe import load_recipe
from clipbench.recipes.request import Request
from clipbench.recipes.suites import load_suite


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.filterwarnings("ignore:Traceback")
def test_trainer_method_and_data_are_gone_after_a_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    user = ({"trainer": {"max_epochs": 1}},)
    request = Request((load_recipe("clipfit"),), load_suite("mini"), ("dtd",), (1,), shots=1, user=user)
    plan = make_plan(request, tmp_path)
    built: list[weakref.ref[Any]] = []
    build = run.build

    def watched(config: Any) -> Any:
        cli = build(config)
        built.extend(weakref.ref(part) for part in (cli, cli.model, cli.datamodule, cli.trainer))
        return cli

    def broken(*_: object) -> None:
        raise ValueError("a fault of ours")

    monkeypatch.setattr(run, "build", watched)
    if fails:
        monkeypatch.setattr(run, "split_outcomes", broken)
    outcome = run.run_cell(plan.cells[0], plan.folder)
    assert outcome.record is not None
    assert outcome.record.ok is not fails
    assert [part() for part in built] == [None] * 4
