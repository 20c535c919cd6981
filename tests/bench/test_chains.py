"""Chains: what a recipe starts from is planned and run before it, and its key is part of the key."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save

from clipbench.backbone.clip import backbone_hash
from clipbench.bench import launchers
from clipbench.bench.plan import Plan, PlannedCell, make_plan
from clipbench.bench.run import Outcome
from clipbench.commands import main
from clipbench.errors import ConfigError, MethodError
from clipbench.methods.clipfit import CLIPFit
from clipbench.methods.fisher_freezing import FisherFreezing
from clipbench.methods.weights_file import Header
from clipbench.recipes.recipe import from_dotted, load_recipe
from clipbench.recipes.request import Request
from clipbench.recipes.start import start_of
from clipbench.recipes.suites import load_suite
from clipbench.records.store import Record, RecordStore, read_record

Recipes = Callable[..., str]
HEADER = Header(
    "CLIPFit", {}, None, "mini", backbone_hash("mini"), "coop", ["a photo of a {}."], "eurosat", ["river", "road"], 1
)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipes:
    """Write a small recipe; returns its path."""

    def write(name: str, method: str = "CLIPFit", epochs: int = 1, **arguments: object) -> str:
        path = tmp_path / f"{name}.yaml"
        content = {"model": {"class_path": method, "init_args": arguments}, "trainer": {"max_epochs": epochs}}
        path.write_text(yaml.safe_dump(content))
        return str(path)

    return write


@pytest.fixture
def chain(recipe: Recipes) -> str:
    """A small tuned recipe, and one that interpolates it."""
    return recipe("between", "WiSEFT", 0, start=recipe("tuned", template_set="clipfit"))


def request(*recipes: str, **changes: object) -> Request:
    user = tuple([from_dotted(changes.pop("user"))] if "user" in changes else [])  # type: ignore[arg-type]
    return Request(
        recipes=tuple(load_recipe(name) for name in recipes), suite=load_suite("mini"), datasets=("eurosat",),
        seeds=(1, 2), shots=2, user=user,
    )  # fmt: skip


def by_recipe(plan: Plan) -> dict[tuple[str, int], PlannedCell]:
    return {(planned.cell.recipe, planned.cell.seed): planned for planned in plan.cells}


def test_another_version_of_what_it_starts_from_is_another_row(
    chain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key follows by the key of the start; a row of another seed would not."""

    def digests() -> set[str]:
        plan = make_plan(request(chain), tmp_path)
        return {one.provenance["recipe_digest"] for one in plan.cells if one.cell.recipe == "between"}

    before = digests()
    assert len(before) == 1
    monkeypatch.setattr(CLIPFit, "version", CLIPFit.version + 1)
    assert not digests() & before


def test_the_parent_is_planned_first_with_the_same_axes(chain: str, tmp_path: Path) -> None:
    plan = make_plan(request(chain), tmp_path)
    assert [planned.cell.recipe for planned in plan.cells] == ["tuned", "tuned", "between", "between"]
    assert [planned.cell.recipe for planned in plan.others] == ["tuned", "tuned"]
    for child in plan.cells[2:]:
        parent = child.start
        assert parent is not None
        assert parent in plan.cells
        assert replace(parent.cell, recipe="between") == child.cell
        assert child.provenance["start"] == {"recipe": "tuned", "key": parent.key}
        store = RecordStore(plan.folder)
        assert child.config["model"]["init_args"]["start"] == str(store.weights_for(parent.cell, parent.key))
        assert child.resolved["model"]["init_args"]["start"].endswith("tuned.yaml")
        assert child.provenance["template_set"] == "clipfit", "null: that of the parent"


def test_the_key_follows_the_parent_and_not_the_folder(chain: str, recipe: Recipes, tmp_path: Path) -> None:
    before = by_recipe(make_plan(request(chain), tmp_path / "one"))
    assert by_recipe(make_plan(request(chain), tmp_path / "two"))["between", 1].key == before["between", 1].key
    recipe("tuned", template_set="clipfit", lr=0.1)
    after = by_recipe(make_plan(request(chain), tmp_path / "one"))
    assert after["tuned", 1].key != before["tuned", 1].key
    assert after["between", 1].key != before["between", 1].key


def test_settings_of_the_user_are_for_the_child_alone(chain: str, tmp_path: Path) -> None:
    plain = by_recipe(make_plan(request(chain), tmp_path))
    changed = by_recipe(make_plan(request(chain, user={"model.alpha": 0.2}), tmp_path))
    assert changed["tuned", 1].key == plain["tuned", 1].key
    assert changed["tuned", 1].provenance["variant"] == {}
    assert changed["between", 1].provenance["variant"] == {"model.alpha": 0.2}
    assert changed["between", 1].provenance["recipe_digest"] == plain["between", 1].provenance["recipe_digest"]
    assert changed["between", 1].key != plain["between", 1].key
    assert changed["between", 1].config["model"]["init_args"]["alpha"] == 0.2


def test_a_cell_that_is_asked_for_too_is_planned_once(recipe: Recipes, tmp_path: Path) -> None:
    tuned = recipe("tuned")
    plan = make_plan(request(recipe("between", "WiSEFT", 0, start=tuned), tuned), tmp_path)
    assert [planned.cell.recipe for planned in plan.cells] == ["tuned", "tuned", "between", "between"]
    assert plan.others == []


def test_a_table_takes_the_cell_that_was_asked_for(recipe: Recipes, tmp_path: Path) -> None:
    """With the user's changes a recipe is another cell than as somebody's start; the former stands in the table."""
    tuned = recipe("tuned")
    later = recipe("later", start=tuned)
    plan = make_plan(request(later, tuned, user={"model.lr": 0.01}), tmp_path)
    found = [planned for planned in plan.cells if planned.cell.recipe == "tuned" and planned.cell.seed == 1]
    assert [planned.provenance["variant"] for planned in found] == [{}, {"model.lr": 0.01}]


def test_three_stages(recipe: Recipes, tmp_path: Path) -> None:
    last = recipe("last", "WiSEFT", 0, start=recipe("second", start=recipe("first")))
    plan = make_plan(request(last), tmp_path)
    assert [planned.cell.recipe for planned in plan.cells if planned.cell.seed == 1] == ["first", "second", "last"]


def test_circles_and_wrong_names(recipe: Recipes, tmp_path: Path) -> None:
    first = recipe("first", start=str(tmp_path / "second.yaml"))
    recipe("second", start=first)
    with pytest.raises(ConfigError, match="'first' starts from 'second' starts from 'first'"):
        make_plan(request(first), tmp_path)
    with pytest.raises(ConfigError, match="did you mean the recipe 'clipfit'"):
        make_plan(request(recipe("third", start="clipfti")), tmp_path)
    with pytest.raises(ConfigError, match="'zero_shot', which learns nothing"):
        make_plan(request(recipe("fourth", start="zero_shot")), tmp_path)
    assert start_of({"model": {"init_args": {"start": None}}}, "none") is None


def test_a_file_is_known_by_its_content_and_the_version_of_its_method(
    recipe: Recipes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    header = json.dumps(HEADER.as_dict())
    content = [save({"x": torch.tensor(x)}, {"clipbench": "1", "header": header}) for x in (1.0, 2.0)]

    def key(name: str, which: int) -> str:
        (tmp_path / f"{name}.safetensors").write_bytes(content[which])
        path = recipe("later", start=str(tmp_path / f"{name}.safetensors"))
        planned = make_plan(request(path), tmp_path).cells[0]
        assert planned.start is None
        return planned.key

    assert key("a", 0) == key("b", 0) != key("b", 1)
    before = key("a", 0)
    monkeypatch.setattr(CLIPFit, "version", CLIPFit.version + 1)
    assert key("a", 0) != before
    (tmp_path / "c.safetensors").write_bytes(b"what is this")
    with pytest.raises(MethodError, match="cannot be read as learned weights"):
        make_plan(request(recipe("later", start=str(tmp_path / "c.safetensors"))), tmp_path)


def test_the_version_of_a_callback_is_part_of_the_key(
    recipe: Recipes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    freezing = {"class_path": "clipbench.methods.fisher_freezing.FisherFreezing"}

    def key(callbacks: list[dict[str, str]]) -> str:
        return make_plan(request("clipfit", user={"trainer.callbacks": callbacks}), tmp_path).cells[0].key

    before, without = key([freezing]), key([])
    monkeypatch.setattr(FisherFreezing, "version", FisherFreezing.version + 1)
    assert key([freezing]) != before
    assert key([]) == without


def test_a_selection_that_means_nothing_is_refused_by_the_plan(recipe: Recipes, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="blcks all"):
        make_plan(request("mft", user={"model.train": ["text tower, blcks all, Linears"]}), tmp_path)
    with pytest.raises(ConfigError, match="nowhere"):  # also where it is the start that means nothing
        make_plan(
            request(recipe("between", "WiSEFT", 1, start=recipe("odd", "FineTuning", train=["text tower, nowhere"]))),
            tmp_path,
        )
    begun = recipe("begun", "FineTuning", start="clipfit", train=["text tower, biasses"])
    with pytest.raises(ConfigError, match="biasses"):
        make_plan(request(begun), tmp_path)


def bench(tmp_path: Path, recipe: str, *words: str) -> int:
    words = ("--datasets", "eurosat", "--seeds", "1", "--shots", "2", "--results", str(tmp_path / "runs"), *words)
    return main(["bench", "--method", recipe, *words])


def test_run_rerun_and_what_is_missing(chain: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(tmp_path, chain, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "1 cell and 1 of tuned to start from, 0 done already" in said
    assert "starts from tuned" in said
    assert bench(tmp_path, chain, "--jobs", "1") == 0
    said = capsys.readouterr().out
    assert said.index("[1/2] tuned") < said.index("[2/2] between")
    folder = tmp_path / "runs/mini/base_to_novel"
    records = {read_record(path).cell.recipe: read_record(path) for path in (folder / "records").glob("*.json")}
    assert set(records) == {"tuned", "between"}
    assert records["between"].provenance["start"]["key"] == records["tuned"].key
    assert records["between"].data["config"]["model"]["init_args"]["start"].endswith("tuned.yaml")
    assert records["between"].cost["trained_parameters"] == records["tuned"].cost["trained_parameters"] > 0
    table = (folder / "leaderboard.csv").read_text()
    assert "tuned" in table
    assert "between" in table
    times = {path: path.stat().st_mtime_ns for path in (folder / "records").glob("*.json")}
    assert bench(tmp_path, chain, "--jobs", "1") == 0
    assert "2 done already" in capsys.readouterr().out
    assert times == {path: path.stat().st_mtime_ns for path in (folder / "records").glob("*.json")}
    first = {name: record.splits for name, record in records.items()}
    next((folder / "weights").glob("tuned-*")).unlink()
    assert bench(tmp_path, chain, "--jobs", "1") == 0
    assert "1 done already" in capsys.readouterr().out
    again = {read_record(path).cell.recipe: read_record(path) for path in (folder / "records").glob("*.json")}
    assert {name: record.splits for name, record in again.items()} == first
    assert list((folder / "weights").glob("tuned-*"))


def test_a_failed_parent_fails_its_children(
    recipe: Recipes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    diverging = recipe("tuned", lr=1e30, warmup_epochs=0, epochs=3)
    assert bench(tmp_path, recipe("between", "WiSEFT", 0, start=diverging), "--jobs", "1") == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "not run: it starts from tuned on eurosat" in said
    assert "2 cells failed" in said


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are threads: they start at once and see what a test replaced."""
    monkeypatch.setattr(launchers, "ProcessPoolExecutor", lambda workers, *_, **__: ThreadPoolExecutor(workers))
    monkeypatch.setattr(launchers, "_start_server", lambda _: None)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dies", ["", "first", "second", "last"])
def test_workers_run_parents_before_children(
    recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies: str
) -> None:
    last = recipe("last", "WiSEFT", 0, start=recipe("second", start=recipe("first")))
    plan = make_plan(request(last, recipe("free")), tmp_path)
    finished: list[str] = []
    died: list[str] = []

    def run(planned: PlannedCell, *_: object) -> Outcome:
        if planned.start is not None:
            assert planned.start.key in finished, f"{planned.cell} before {planned.start.cell}"
        if planned.cell.recipe == dies and not died:
            died.append(planned.key)
            raise BrokenProcessPool
        time.sleep(0.01)
        finished.append(planned.key)
        return Outcome(planned, Record({"status": "ok"}))

    monkeypatch.setattr(launchers, "run_cell", run)
    outcomes: list[Outcome] = []
    said: list[str] = []
    launchers.Inline(2).run(plan.cells, plan.folder, outcomes.append, said.append)
    assert sorted(outcome.planned.key for outcome in outcomes) == sorted(planned.key for planned in plan.cells)
    assert len(died) == bool(dies)
    assert any("a worker process died" in line for line in said) == bool(dies)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("jobs", [1, 2])
def test_children_wait_with_a_parent_that_another_bench_runs(
    recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    last = recipe("last", "WiSEFT", 0, start=recipe("second", start=recipe("first")))
    plan = make_plan(replace(request(last), seeds=(1,)), tmp_path)
    ran: list[str] = []

    def elsewhere(planned: PlannedCell, *_: object) -> Outcome:
        ran.append(planned.cell.recipe)
        return Outcome(planned, None)

    monkeypatch.setattr(launchers, "run_cell", elsewhere)
    held: list[Outcome] = []
    launchers.Inline(jobs).run(plan.cells, plan.folder, held.append, print)
    assert ran == ["first"]
    assert [outcome.planned.cell.recipe for outcome in held] == ["first", "second", "last"]
    assert all(outcome.record is None for outcome in held)


def test_fit_takes_a_file(chain: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "--config", "wise_ft", "--data.shots", "2", "--trainer.default_root_dir", str(tmp_path / "fit")]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "'full'" in said
    assert "clipbench bench" in said
    assert "--model.start FILE" in said
    assert bench(tmp_path, str(Path(chain).with_name("tuned.yaml")), "--jobs", "1") == 0
    capsys.readouterr()
    file = next((tmp_path / "runs/mini/base_to_novel/weights").glob("*.safetensors"))
    assert main([*words, "--model.start", str(file), "--model.alpha", "0.25"]) == 0
    said = capsys.readouterr().out
    made = next((tmp_path / "fit").rglob("weights.safetensors"))
    assert str(made) in said
    from clipbench.methods.weights_file import read_header

    header = read_header(made)
    assert (header.method, header.init_args["alpha"]) == ("WiSEFT", 0.25)
    assert header.init_args["start"]["method"] == "CLIPFit"
    assert json.dumps(header.init_args)
