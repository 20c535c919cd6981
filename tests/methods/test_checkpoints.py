"""What was learned comes back: from Lightning's checkpoints, from a file of weights, from a pickle, from a copy."""

from __future__ import annotations

import copy
import csv
import pickle
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor

import clipbench
from clipbench import CLIPFit, CoOp, FewShotDataModule, LoRA, Method
from clipbench.bench.trainer import quiet_lightning
from clipbench.errors import MethodError
from clipbench.methods.weights_file import read_learned
from clipbench.recipes.recipe import load_recipe

QUIET: dict[str, Any] = {
    "logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False,
    "limit_val_batches": 0,
}  # fmt: skip
NAMES = ["forest", "river"]


@pytest.fixture(autouse=True)
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written beside the tests, and Lightning is silent."""
    monkeypatch.chdir(tmp_path)
    quiet_lightning()


def trainer(epochs: int = 2, **settings: Any) -> L.Trainer:
    return L.Trainer(**{"max_epochs": epochs} | QUIET | settings)


def dtd(**settings: Any) -> FewShotDataModule:
    return FewShotDataModule("mini/dtd", **{"shots": 2, "batch_size": 5, "seed": 1} | settings)


def pixels() -> Tensor:
    """Random images, uint8 (3, 3, H, W)."""
    size = CLIPFit(backbone="mini").preprocessing.size
    return torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def fitted(kind: Any = CLIPFit, epochs: int = 2, **settings: Any) -> Any:
    method = kind(**{"backbone": "mini", "warmup_epochs": 0} | settings)
    trainer(epochs).fit(method, dtd())
    return method


def same(one: Method, other: Method) -> bool:
    """Whether two methods have learned the same, bit for bit."""
    theirs = other.weights.state()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.weights.state().items())


def test_callbacks_and_loggers_of_lightning_do_their_work() -> None:
    method, data = CLIPFit(backbone="mini", lr=0.01), dtd()
    keep = ModelCheckpoint(dirpath="kept", monitor="val/accuracy", mode="max")
    stop, rates = EarlyStopping("val/accuracy", mode="max", patience=1), LearningRateMonitor()
    logger = CSVLogger(".", name="log", version=0)
    shown = {"logger": logger, "log_every_n_steps": 1, "enable_checkpointing": True, "limit_val_batches": 1.0}
    trainer(3, callbacks=[keep, stop, rates], **shown).fit(method, data)
    with Path("log/version_0/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    columns = {name for row in rows for name, value in row.items() if value}
    assert {"train/total", "train/cross_entropy", "train/distillation", "val/accuracy", "lr-SGD"} <= columns
    assert next(float(row["lr-SGD"]) for row in rows if row["lr-SGD"]) == pytest.approx(1e-5)
    best = CLIPFit.load_from_checkpoint(keep.best_model_path)
    (outcome,) = trainer(limit_val_batches=1.0).validate(best, dtd(), verbose=False)
    assert outcome["val/accuracy"] == pytest.approx(float(keep.best_model_score or -1))
    assert Path(keep.best_model_path).stat().st_size < 2_000_000, "a checkpoint holds the backbone"


@pytest.mark.parametrize("name", ["CLIPFit", "CoOp", "LinearProbe"])
def test_a_checkpoint_gives_a_new_object_class_names_templates_and_what_was_learned(name: str) -> None:
    method, run = getattr(clipbench, name)(backbone="mini"), trainer()
    run.fit(method, dtd())
    run.save_checkpoint("x.ckpt")
    again = type(method).load_from_checkpoint("x.ckpt")
    assert (again.classnames, again.templates) == (method.classnames, method.templates)
    assert again.templates == ("{} texture.",)
    with torch.no_grad():
        assert torch.equal(again(pixels()), method(pixels()))
        assert torch.equal(again.class_features(method.classnames), method.class_features(method.classnames))
    assert torch.equal(again.predict(pixels(), classes=NAMES), method.predict(pixels(), classes=NAMES))


@pytest.mark.parametrize("recipe", ["coop", "clip_lora", "clipfit", "mft"])
def test_a_resumed_fit_is_the_uninterrupted_one(recipe: str) -> None:
    loaded = load_recipe(recipe)
    kind, arguments = getattr(clipbench, loaded.method), loaded.sections["model"]["init_args"]
    whole, parts = kind(**arguments), kind(**arguments)
    trainer(3).fit(whole, dtd())
    keep = ModelCheckpoint(dirpath="kept", filename="{epoch}", save_top_k=-1)
    trainer(3, enable_checkpointing=True, callbacks=[keep]).fit(kind(**arguments), dtd())
    trainer(3).fit(parts, dtd(), ckpt_path="kept/epoch=0.ckpt")
    assert same(whole, parts)
    first = kind.load_from_checkpoint("kept/epoch=0.ckpt")
    assert not same(whole, first)


def test_a_resume_under_another_number_of_epochs_is_refused() -> None:
    run = trainer(2)
    run.fit(CLIPFit(backbone="mini"), dtd())
    run.save_checkpoint("x.ckpt")
    with pytest.raises(MethodError, match=r"span other epochs \(max_epochs=2, here 3"):
        trainer(3).fit(CLIPFit(backbone="mini"), dtd(), ckpt_path="x.ckpt")


def test_a_constant_rate_may_go_on_for_longer() -> None:
    whole, more = (CLIPFit(backbone="mini", schedule="constant", warmup_epochs=0) for _ in range(2))
    trainer(3).fit(whole, dtd())
    run = trainer(2)
    run.fit(CLIPFit(backbone="mini", schedule="constant", warmup_epochs=0), dtd())
    run.save_checkpoint("x.ckpt")
    trainer(3).fit(more, dtd(), ckpt_path="x.ckpt")
    assert same(whole, more)


def test_a_checkpoint_of_another_method_is_refused() -> None:
    run = trainer(1)
    run.fit(CoOp(backbone="mini"), dtd())
    run.save_checkpoint("x.ckpt")
    with pytest.raises(MethodError, match="learned by CoOp, not by CLIPFit"):
        trainer(1).test(CLIPFit(backbone="mini"), dtd(), ckpt_path="x.ckpt", verbose=False)


def test_a_state_dict_holds_what_is_trained_and_loads_nothing_else() -> None:
    method, other = fitted(), CLIPFit(backbone="mini")
    state = method.state_dict()
    assert len(state) == len(method.trainable)
    assert sum(tensor.numel() for tensor in state.values()) == method.num_trainable()
    other.setup(task=dtd().task)
    assert not same(method, other)
    other.load_state_dict(state)
    assert same(method, other)
    name = next(iter(state))
    less = {key: tensor for key, tensor in state.items() if key != name}
    with pytest.raises(MethodError, match=f"do not fit: missing .*{name}"):
        other.load_state_dict(less, strict=False)
    with pytest.raises(MethodError, match=r"not expected .*logit_scale"):
        other.load_state_dict(state | {"backbone.logit_scale": torch.zeros(())})


def test_saved_and_loaded_it_answers_the_same_for_any_classes() -> None:
    method = fitted(lr=0.01)
    method.save("a.safetensors")
    loaded = CLIPFit.load("a.safetensors")
    for classes in (None, NAMES, ["river"]):
        assert torch.equal(loaded.predict(pixels(), classes), method.predict(pixels(), classes))


def test_what_was_loaded_goes_on_as_if_it_had_never_been_away() -> None:
    recipe = load_recipe("clip_lora").sections["model"]["init_args"]
    assert recipe["dropout"] > 0
    method = LoRA(**recipe)
    trainer(1).fit(method, dtd())
    method.save("a.safetensors")
    loaded = LoRA.load("a.safetensors").eval()
    assert same(method, loaded)
    for one in (method, loaded):
        trainer(1).fit(one, dtd())
    assert same(method, loaded)
    without = LoRA(**recipe | {"dropout": 0.0})
    without.setup(learned=read_learned(Path("a.safetensors")))
    trainer(1).fit(without, dtd())
    assert not same(method, without), "there was no dropout"


@pytest.mark.parametrize("training", [True, False])
def test_asking_saving_and_loading_leave_train_flags_as_they_were(training: bool) -> None:
    method = LoRA(backbone="mini", dropout=0.5)
    method.setup(task=dtd().task)
    method.train(training)
    flags = {name: part.training for name, part in method.named_modules()}
    assert any(flags.values()) == training
    method.predict(pixels(), classes=NAMES)
    method.save("a.safetensors")
    LoRA.load("a.safetensors")
    trainer().test(method, dtd(), verbose=False)
    pickle.dumps(method)
    assert {name: part.training for name, part in method.named_modules() if name in flags} == flags


@pytest.mark.parametrize("name", ["CoOp", "LoRA", "MFT", "LinearProbe", "ZeroShot"])
def test_a_method_is_pickled_and_copied_before_and_after_it_learned(name: str) -> None:
    method, data = getattr(clipbench, name)(backbone="mini"), dtd()
    fresh = [pickle.loads(pickle.dumps(method)), copy.deepcopy(method)]
    pickle.loads(pickle.dumps(data))
    trainer().fit(method, data)
    pickle.loads(pickle.dumps(data))
    for twin in fresh:
        trainer().fit(twin, dtd())
    with torch.no_grad():
        logits = method(pixels())
        for twin in (pickle.loads(pickle.dumps(method)), copy.deepcopy(method)):
            assert torch.equal(twin(pixels()), logits)
            assert not {id(p) for p in twin.trainable.values()} & {id(p) for p in method.trainable.values()}
        for twin in fresh:
            assert torch.equal(twin(pixels()), logits)


def test_a_copy_that_is_moved_leaves_the_original_where_it_is() -> None:
    method = fitted(CoOp)
    logits = method(pixels()).detach()
    twin = copy.deepcopy(method)
    twin.to("meta")
    assert twin.backbone.logit_scale.is_meta
    assert twin.backbone.pretrained.logit_scale.is_meta
    assert torch.equal(method(pixels()), logits)
    assert method(pixels()).device.type == "cpu"
