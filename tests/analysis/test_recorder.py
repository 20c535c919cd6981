"""The recorder's numbers, computed a second time from checkpoints; and that it changes nothing."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from clipbench.analysis.recorder import COLUMNS, ChangeRecorder
from clipbench.bench.build import ClipbenchCLI
from clipbench.commands import main
from clipbench.errors import ConfigError
from clipbench.recipes.recipe import known_recipes, load_recipe
from clipbench.testing.subject import Subject

Make = Callable[..., Subject]
States = dict[int, dict[str, np.ndarray]]


def states_of(folder: Path, prefix: str = "backbone.") -> States:
    """Step -> what a checkpoint holds, in float64."""
    found = {}
    for path in folder.glob("*.ckpt"):
        checkpoint = torch.load(path, weights_only=True)
        tensors = {k.removeprefix(prefix): v.double().numpy() for k, v in checkpoint["state_dict"].items()}
        found[checkpoint["global_step"]] = tensors
    return found


def every_step(folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)


def loaded(cli: ClipbenchCLI) -> dict[str, np.ndarray]:
    method = cli.model
    return {name: method.backbone.pretrained_tensor(name).double().numpy().copy() for name in method.trainable}


def at(rows: list[dict[str, Any]], step: int) -> dict[str, dict[str, Any]]:
    return {row["tensor"]: row for row in rows if row["step"] == step}


def test_changes_equal_those_of_the_checkpoints_of_two_epochs(subject: Make) -> None:
    one = subject()
    recorder = ChangeRecorder(every=1, path=None)
    with one.cli() as cli:
        before = loaded(cli)
        one.fit(cli, recorder, every_step(one.folder / "kept"))
    rows, states = recorder.rows(), states_of(one.folder / "kept")
    assert set(states) == {1, 2, 3, 4}
    assert {row["step"] for row in rows} == {0, *states}
    assert len(rows) == 5 * len(before)
    for row in at(rows, 0).values():
        assert row["sum_squares"] == 0
    for step, tensors in states.items():
        found = at(rows, step)
        assert set(found) == set(tensors)
        for name, now in tensors.items():
            squares = float(((now - before[name]) ** 2).sum())
            assert squares > 0
            assert found[name]["sum_squares"] == pytest.approx(squares, rel=1e-10)
            assert found[name]["mean_square"] == pytest.approx(squares / now.size, rel=1e-10)
            assert found[name]["relative"] == pytest.approx(
                np.linalg.norm(now - before[name]) / np.linalg.norm(before[name]), rel=1e-10
            )


def test_gradients_equal_the_differences_of_plain_descent(subject: Make) -> None:
    """With SGD alone a step is -lr g, so every quantity can be read off the checkpoints."""
    plain = {"model.momentum": 0.0, "model.weight_decay": 0.0, "model.warmup_epochs": 0, "model.schedule": "constant"}
    one = subject(**plain, **{"model.lr": 0.05})
    recorder = ChangeRecorder(every=2, path=None)
    with one.cli() as cli:
        states = {0: loaded(cli)}
        one.fit(cli, recorder, every_step(one.folder / "kept"))
    states |= states_of(one.folder / "kept")
    rows = recorder.rows()
    assert {row["step"] for row in rows} == {0, 2, 4}
    for name in states[0]:
        moves = [states[step + 1][name] - states[step][name] for step in range(4)]
        lengths = [float(np.linalg.norm(move)) for move in moves]
        cosines = [float((a * b).sum()) for a, b in itertools.pairwise(moves)]
        cosines = [c / a / b for c, (a, b) in zip(cosines, itertools.pairwise(lengths), strict=True)]
        last = at(rows, 4)[name]
        assert last["path_length"] == pytest.approx(sum(lengths), rel=1e-3)
        assert last["gradient_squares"] == pytest.approx(sum(x * x for x in lengths) / 0.05**2, rel=1e-3)
        assert at(rows, 2)[name]["gradient_cosine"] == pytest.approx(cosines[0], abs=2e-3)
        assert last["gradient_cosine"] == pytest.approx((cosines[1] + cosines[2]) / 2, abs=2e-3)
        assert last["path_length"] >= last["sum_squares"] ** 0.5 * (1 - 1e-6), "no way is shorter than the straight one"


def test_the_result_is_bit_identical_with_and_without(subject: Make) -> None:
    learned = []
    for callbacks in ([], [ChangeRecorder(every=1, path=None)]):
        one = subject()
        with one.cli() as cli:
            one.fit(cli, *callbacks)
            learned.append({name: p.detach().clone() for name, p in cli.model.trainable.items()})
    assert learned[0]
    for name, tensor in learned[0].items():
        assert torch.equal(tensor, learned[1][name]), name


def test_what_is_trained_beside_the_backbone_is_compared_with_its_start(subject: Make) -> None:
    one, recorder = subject("coop"), ChangeRecorder(every=100, path=None)
    with one.cli() as cli:
        start = {name: p.detach().double() for name, p in cli.model.trainable.items()}
        one.fit(cli, recorder)
        end = {name: p.detach().double() for name, p in cli.model.trainable.items()}
    rows = recorder.rows()
    assert [row["step"] for row in rows] == [0, 4], "first and last step, whatever `every` is"
    for row in rows:
        assert row["reference"] == "start"
    for name, tensor in end.items():
        assert at(rows, 4)[name]["sum_squares"] == pytest.approx(float((tensor - start[name]).square().sum()))


def test_a_merged_weight_is_compared_with_the_loaded_one(subject: Make) -> None:
    """Low-rank factors change a Linear; the record shows the Linear, and the factors beside it."""
    one, recorder = subject("lora"), ChangeRecorder(every=1, path=None)
    with one.cli() as cli:
        backbone = cli.model.backbone
        one.fit(cli, recorder)
        now = {name: tensor.clone() for name, tensor in backbone.changed_tensors().items()}
        before = {name: backbone.pretrained_tensor(name).clone() for name in now}
        trained = set(cli.model.trainable)
    rows = recorder.rows()
    merged = {row["tensor"] for row in rows if row["reference"] == "pretrained"}
    assert merged == set(now)
    assert {row["tensor"] for row in rows if row["reference"] == "start"} == trained
    for name in merged:
        assert at(rows, 0)[name]["sum_squares"] == 0, "at the start a factor is zero"
        squares = float((now[name].double() - before[name].double()).square().sum())
        assert squares > 0
        assert at(rows, 4)[name]["sum_squares"] == pytest.approx(squares)
        assert "path_length" not in at(rows, 4)[name]


@pytest.mark.parametrize("recipe", known_recipes())
def test_it_works_with_every_recipe(subject: Make, recipe: str) -> None:
    one, recorder = subject(recipe, **{"trainer.max_epochs": 1}), ChangeRecorder(every=1, path=None)
    with one.cli() as cli:
        if not cli.model.trainable or load_recipe(recipe).sections["trainer"].get("max_epochs") == 0:
            return  # the bench does not fit it
        one.fit(cli, recorder)
        trained = set(cli.model.trainable)
        changed = set(cli.model.backbone.changed_tensors())
    rows = recorder.rows()
    assert {row["tensor"] for row in rows} == trained | changed
    steps = sorted({row["step"] for row in rows})
    assert steps == list(range(len(steps))), "a method that is solved without steps has step 0 alone"
    for row in rows:
        assert np.isfinite(row["sum_squares"])
    if len(steps) > 1:
        assert any(row["sum_squares"] for row in at(rows, steps[-1]).values())
        assert any(row.get("path_length") for row in at(rows, steps[-1]).values())


def test_it_cannot_go_on_from_a_checkpoint(subject: Make) -> None:
    one = subject()
    with one.cli() as cli:
        one.fit(cli, every_step(one.folder / "kept"))
    path = next((one.folder / "kept").glob("*step=2*.ckpt"))
    with one.cli() as cli:
        cli.trainer.callbacks.append(ChangeRecorder())
        with pytest.raises(ConfigError, match="checkpoint"):
            cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=str(path))


def test_every_needs_a_step() -> None:
    with pytest.raises(ConfigError, match="every 0"):
        ChangeRecorder(every=0)


def test_a_config_can_name_it(tmp_path: Path) -> None:
    """In YAML, as any callback of Lightning's; one file per cell."""
    (tmp_path / "record.yaml").write_text(
        "trainer:\n  callbacks:\n    - class_path: clipbench.analysis.recorder.ChangeRecorder\n"
        f"      init_args: {{every: 1, path: '{tmp_path}/{{dataset}}-{{seed}}.csv'}}\n"
    )
    small = ["--shots", "2", "--jobs", "1", "--set", "trainer.max_epochs=1", "--results", str(tmp_path / "runs")]
    words = [
        "bench",
        "-m",
        "clipfit",
        "--datasets",
        "eurosat",
        "--seeds",
        "3",
        "--config",
        str(tmp_path / "record.yaml"),
    ]
    assert main([*words, *small]) == 0
    rows = list(csv.DictReader((tmp_path / "eurosat-3.csv").open()))
    assert tuple(rows[0]) == COLUMNS
    assert {row["step"] for row in rows} == {"0", "1"}
    assert {row["seed"] for row in rows} == {"3"}
    assert all(float(row["sum_squares"]) > 0 for row in rows if row["step"] == "1")


def test_half_a_fit_leaves_no_file(subject: Make) -> None:
    class Stop(L.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            raise RuntimeError("stopped")

    one = subject()
    with one.cli() as cli:
        cli.trainer.callbacks += [ChangeRecorder(1, str(one.folder / "changes.csv")), Stop()]
        with pytest.raises(RuntimeError, match="stopped"):
            cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    assert not (one.folder / "changes.csv").exists()
