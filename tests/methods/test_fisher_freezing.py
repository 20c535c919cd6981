"""FisherFreezing in a fit: what is frozen stays bit-identical and costs nothing, with every kind of method."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import re
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml
from torch import Tensor

from clipbench.errors import ClipbenchWarning, ConfigError
from clipbench.methods.base import Method
from clipbench.methods.fisher_freezing import FisherFreezing
from clipbench.testing.subject import Subject
from clipbench.tuning.fisher_settings import CORRECTED, CORRECTED_JSD, FAITHFUL, FisherSettings
from clipbench.tuning.fisher_watch import FisherWatch

STEPS = 16  # 8 epochs of 2 steps
EARLY = {"trainer.max_epochs": 8}


class Diary(L.Callback):
    """After every step: which tensors still train, and the values of all."""

    def __init__(self) -> None:
        self.values: list[dict[str, Tensor]] = []
        self.trainable: list[set[str]] = []
        self.gradients: list[set[str]] = []
        self.states: list[int] = []
        self.text_runs: list[int] = []

    def on_before_zero_grad(self, trainer: L.Trainer, method: Any, optimizer: Any) -> None:
        if trainer.global_step:
            self.gradients.append({name for name, p in method.trainable.items() if p.grad is not None})

    def on_train_batch_end(self, trainer: L.Trainer, method: Any, *_: Any) -> None:
        self.values.append({name: p.detach().clone() for name, p in method.trainable.items()})
        self.trainable.append({name for name, p in method.trainable.items() if p.requires_grad})
        self.states.append(len(trainer.optimizers[0].state))


def fit(folder: Path, callback: FisherFreezing | None, recipe: str = "full", **settings: Any) -> tuple[Method, Diary]:
    """A short fit on mini; returns the method and the diary."""
    diary = Diary()
    subject = Subject(recipe, folder, settings=EARLY | settings)
    with subject.cli() as cli:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ClipbenchWarning)
            subject.fit(cli, *([callback] if callback else []), diary)
        cli.model.diagnostics["active_count"] = cli.model.weights.num_active()
    return cli.model, diary


def told(method: Method) -> dict[str, Any]:
    found: dict[str, Any] = method.diagnostics["fisher_freezing"]
    return found


def frozen_tensors(callback: FisherFreezing) -> dict[str, int]:
    """Tensors frozen whole, and the steps done when the last of them was."""
    watch = callback.watch
    assert watch is not None
    at: dict[str, list[int | None]] = {}
    for group in watch.groups:
        for piece in group.pieces:
            at.setdefault(piece.tensor, []).append(watch.frozen_at.get(group.name))
    return {name: max(steps) for name, steps in at.items() if None not in steps}  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("full", {}),
        ("clipfit", {}),
        ("lora", {}),
        ("mft", {"model.start": None}),
        ("bitfit", {"trainer.precision": "bf16-mixed"}),
    ],
)
def test_frozen_tensors_keep_every_bit_and_leave_the_graph(
    recipe: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    callback = FisherFreezing(width=0.5, floor=0.0)
    method, diary = fit(tmp_path, callback, recipe, **settings)
    frozen = frozen_tensors(callback)
    assert frozen, "nothing was frozen"
    assert set(frozen) != set(diary.values[0]), "everything was frozen"
    for name, at in frozen.items():
        for step in range(at - 1, STEPS):  # the step that freezes does not move it any more
            assert torch.equal(diary.values[step][name], diary.values[at - 2][name]), (name, step)
            assert name not in diary.trainable[step]
        assert all(name not in gradients for gradients in diary.gradients[at:])
        assert not torch.equal(diary.values[at - 2][name], diary.values[0][name])
    for name in set(diary.values[0]) - set(frozen):
        assert not torch.equal(diary.values[-1][name], diary.values[-2][name])
    assert diary.states[-1] == len(diary.values[0]) - len(frozen)
    facts = told(method)
    assert facts["active"][0] == {"step": 0, "entries": facts["entries"], "groups": len(facts["groups"])}
    assert facts["active"][-1]["entries"] == method.diagnostics["active_count"] < facts["entries"]
    assert [entry["step"] for entry in facts["active"]] == sorted({entry["step"] for entry in facts["active"]})
    assert json.loads(json.dumps(facts)) == facts


def test_a_callback_that_freezes_nothing_changes_nothing(tmp_path: Path) -> None:
    train = {"model.train": ["text tower, blocks 0 and 1, everything"]}
    _, plain = fit(tmp_path, None, **train)
    callback = FisherFreezing(width=-100.0)
    _, watched = fit(tmp_path, callback, **train)
    for name, value in plain.values[-1].items():
        assert torch.equal(watched.values[-1][name], value), name
    watch = callback.watch
    assert watch is not None
    assert not watch.frozen_at
    assert all(drift.updates == 3 for drift in watch._drifts.values())


def test_slices_of_a_matrix_are_frozen_apart(tmp_path: Path) -> None:
    callback = FisherFreezing(slices=4, width=0.3, floor=0.0)
    _, diary = fit(tmp_path, callback)
    watch = callback.watch
    assert watch is not None
    parts = [group for group in watch.groups if "[" in group.name and group.name in watch.frozen_at]
    assert any(piece.tensor in diary.trainable[-1] for group in parts for piece in group.pieces)
    for group in parts:
        at = watch.frozen_at[group.name]
        piece = group.pieces[0]
        before = piece.of(diary.values[at - 2][piece.tensor])
        assert all(torch.equal(piece.of(values[piece.tensor]), before) for values in diary.values[at - 1 :])


def test_a_tower_without_anything_trainable_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text tower is frozen in step 8: its features are remembered, and nothing of it is in the graph."""
    runs: list[tuple[int, bool]] = []
    at = 8

    def settle(watch: FisherWatch, step: int) -> list[Any]:
        names = [name for name in watch.active if name.startswith("text")] if step + 1 == at else []
        return watch._leave(names, step)

    monkeypatch.setattr(FisherWatch, "end_step", settle)
    subject = Subject("full", tmp_path, settings=EARLY)
    with subject.cli() as cli:
        encode = cli.model.backbone.encode_text

        def counted(plan: Any, *more: Any, **options: Any) -> Tensor:
            runs.append((cli.trainer.global_step, torch.is_grad_enabled()))
            return encode(plan, *more, **options)

        monkeypatch.setattr(cli.model.backbone, "encode_text", counted)
        subject.fit(cli, FisherFreezing())
    assert [step for step, _ in runs] == list(range(at + 1))
    assert [learns for _, learns in runs] == [True] * at + [False]


def test_faithful_freezes_what_its_hooks_do_not_see_at_the_first_step(tmp_path: Path) -> None:
    """Section 3.3, items 2 and 4: attention and both projections, which then drift by 6 learning rates."""
    lr = 1e-4
    settings = {"model.schedule": "constant", "model.lr": lr, "model.freezing": {"decide_every": 10}}
    method, diary = fit(tmp_path, None, "fisher_adaptune_faithful", **settings)
    facts = told(method)
    dead = {group["name"].partition("[")[0] for group in facts["groups"] if group["frozen_at"] == 1}
    names = set(diary.values[0])
    assert dead == {name for name in names if ".attn." in name or name.endswith(".proj")}
    assert len(dead) == 8 * 8 + 2
    assert len(names) == 8 * 16 + 2 + 6
    drift = (diary.values[-1]["image.proj"] - diary.values[0]["image.proj"]).abs().max().item() / lr
    momentum = [
        0.1 * 0.9**k / (1 - 0.9 ** (k + 1)) * math.sqrt((1 - 0.999 ** (k + 1)) / (0.001 * 0.999**k))
        for k in range(1, STEPS)
    ]
    assert drift == pytest.approx(sum(momentum), rel=0.01)  # of the 6.0 the first step made 1, some is to come
    assert diary.trainable[-1] == names  # it saves nothing
    later = [entry["groups"] for entry in facts["active"]]
    assert later == sorted(later, reverse=True)
    assert later[-1] < 0.25 * later[1], "mean + 1 standard deviation keeps the upper tail only"


def test_faithful_freezes_lone_biases_altogether(tmp_path: Path) -> None:
    """Section 3.3, item 3."""
    callback = FisherFreezing("faithful", decide_every=10, first_decision=10)
    method, _ = fit(tmp_path, callback, "bitfit", **{"model.train": ["both towers, blocks all, mlp.*.bias"]})
    assert told(method)["active"][-1]["groups"] == 0
    assert method.diagnostics["active_count"] == 0


def test_a_run_too_short_for_a_decision_is_told(tmp_path: Path) -> None:
    callback = FisherFreezing("faithful")
    with pytest.raises(ClipbenchWarning, match="first at step 301, but the run has 16 steps"):
        fit(tmp_path, callback)


@pytest.mark.parametrize("mode", ["corrected", "faithful"])
def test_a_resumed_fit_ends_where_an_uninterrupted_one_does(mode: Any, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"floor": 0.0, "slices": 4, "width": 0.3}
    settings |= {"decide_every": 5, "first_decision": 5} if mode == "faithful" else {}
    train = {"model.train": ["text tower, blocks 0 and 1, everything"]}
    whole, plain = fit(tmp_path, FisherFreezing(mode, **settings), **train)
    path = tmp_path / "half.ckpt"

    class Stop(L.Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, method: Any) -> None:
            if trainer.current_epoch == 4:
                trainer.save_checkpoint(path)
                trainer.should_stop = True

    subject = Subject("full", tmp_path, settings=EARLY | train)
    with subject.cli() as cli:
        subject.fit(cli, FisherFreezing(mode, **settings), Stop())
    callback, diary = FisherFreezing(mode, **settings), Diary()
    with subject.cli() as cli:
        cli.trainer.callbacks.extend([callback, diary])  # type: ignore[attr-defined]
        cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=path)
        method = cli.model
    for name, value in plain.values[-1].items():
        assert torch.equal(diary.values[-1][name], value), name
    assert told(method) == told(whole)


def test_every_argument_states_the_default_of_each_mode() -> None:
    listed = re.findall(r"^    (\w+): (.+(?:\n     .+)*)", inspect.getdoc(FisherFreezing) or "", re.MULTILINE)
    (_, of_mode), *others = ((name, " ".join(text.split())) for name, text in listed)
    assert "`corrected` (the default" in of_mode
    assert [name for name, _ in others] == [field.name for field in dataclasses.fields(FisherSettings)]
    modes = (CORRECTED, dataclasses.replace(CORRECTED_JSD, score=CORRECTED.score), FAITHFUL)
    for name, text in others:
        found = re.search(r"Default (\S+?)(?: \((\S+) with another `score`\))?, `faithful` (\S+)\.$", text)
        assert found is not None, name
        corrected, jsd, faithful = (part and yaml.safe_load(part.strip("`")) for part in found.groups())
        stated = (corrected, corrected if jsd is None else jsd, faithful)
        assert stated == tuple(getattr(mode, name) for mode in modes), name


def test_hooks_are_refused_where_the_loss_is_scaled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(L.pytorch.plugins.Precision, "scaler", object(), raising=False)
    with pytest.raises(ConfigError, match="16-mixed"):
        fit(tmp_path, FisherFreezing("faithful", first_decision=2, decide_every=2))


def test_a_second_fit_of_the_same_method_counts_what_is_still_trained(tmp_path: Path) -> None:
    subject = Subject("full", tmp_path, settings=EARLY)
    with subject.cli() as cli:
        subject.fit(cli, FisherFreezing(width=1.0))
        method = cli.model
        active = method.weights.num_active()
        assert 0 < active < method.num_trainable()
        cli.trainer.callbacks[:] = [FisherFreezing(floor=1.0)]  # type: ignore[attr-defined]
        cli.trainer.fit_loop.max_epochs = 2 * cli.trainer.max_epochs  # type: ignore[attr-defined,operator]
        cli.trainer.fit(method, datamodule=cli.datamodule)
        assert told(method)["active"][-1]["entries"] == method.weights.num_active() == active


def test_it_can_be_asked_for_in_yaml(tmp_path: Path) -> None:
    init_args = {"mode": "corrected", "score": "jsd", "interval": 2, "decide_every": 2, "first_decision": 2}
    callbacks = [{"class_path": "clipbench.methods.fisher_freezing.FisherFreezing", "init_args": init_args}]
    subject = Subject("clipfit", tmp_path, settings=EARLY | {"trainer.callbacks": callbacks})
    with subject.cli() as cli:
        subject.fit(cli)
        facts = told(cli.model)
        assert cli.model.weights.num_active() == facts["active"][-1]["entries"] < facts["entries"]
    assert facts["score"] == "jsd"
    assert facts["interval"] == 2
