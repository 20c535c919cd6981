"""Methods that change the towers on mini: begun from a tuned model, and fitted beside another method."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clipbench.backbone.clip import load_backbone
from clipbench.methods.base import Method
from clipbench.testing.subject import Subject, images_of, pretrained_logits, scores

SHORT = {"trainer.max_epochs": 1}
RECIPES: dict[str, dict[str, Any]] = {
    "lora": {},
    "clip_lora": {},
    "adapter": {},
    "mft": {},
    "mft_soft": {},
    "amt": {"model.lr": 0.01},  # else it warns that no mask can turn
    "ramt": {"model.lr": 0.01},
    "fisher_adaptune": {},
    "peft_dora": {},
}
PEFT = {"model.config": {"peft_type": "LORA", "r": 4, "init_lora_weights": "pissa"}}
CASES = [pytest.param(name, settings, id=name) for name, settings in RECIPES.items()]
CASES.append(pytest.param("peft_dora", PEFT, id="peft_pissa"))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What CLIPFit learned in one epoch, at a rate at which it moves far."""
    folder = tmp_path_factory.mktemp("clipfit")
    with Subject("clipfit", folder, settings=SHORT | {"model.lr": 0.02, "model.warmup_epochs": 0}).cli() as cli:
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
        cli.model.save(folder / "clipfit.safetensors", "clipfit")
    return folder / "clipfit.safetensors"


@contextmanager
def short(recipe: str, folder: Path, settings: dict[str, Any]) -> Iterator[Any]:
    with Subject(recipe, folder, settings=SHORT | {"model.start": None} | settings).cli() as cli:
        yield cli


def learned(method: Method) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in method.adapter_state_dict().items()}


@pytest.mark.filterwarnings("ignore:FisherFreezing decides first")
@pytest.mark.parametrize(("recipe", "settings"), CASES)
def test_it_begins_from_a_tuned_model(tuned: Path, tmp_path: Path, recipe: str, settings: dict[str, Any]) -> None:
    """Its weights are there from the first step, and what it learned needs that file no more."""
    start, backbone = Method.load(tuned), load_backbone("mini")
    first = Path(shutil.copy(tuned, tmp_path / "first.safetensors"))
    with short(recipe, tmp_path, settings | {"model.start": str(first)}) as cli:
        method, images = cli.model, images_of(cli)
        names = method.classnames
        method.prompts.templates = start.prompts.templates = method.templates
        zero_shot = pretrained_logits(method, images, names)
        wanted, found = scores(start, images, names), scores(method, images, names)
        for name, tensor in start.weights.in_the_backbone().items():
            assert torch.equal(method.weights.beginning(name), tensor), name
        if recipe != "mft":  # which begins with closed gates
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)
        assert not torch.allclose(wanted, zero_shot, atol=0.1)
        cli.trainer.fit(method, datamodule=cli.datamodule)
        assert all(torch.isfinite(term) for term in method.last_losses.values())
        expected = scores(method, images, names)
        assert not torch.equal(expected, found)
        method.save(tmp_path / "learned.safetensors", recipe)
    first.unlink()
    again = Method.load(tmp_path / "learned.safetensors")
    assert torch.equal(scores(again, images, names), expected)
    assert backbone.compute_hash() == backbone.hash


@pytest.mark.filterwarnings("ignore:FisherFreezing decides first")
@pytest.mark.parametrize(("recipe", "settings"), CASES)
def test_fitted_beside_another_it_learns_what_it_learns_alone(
    tmp_path: Path, recipe: str, settings: dict[str, Any]
) -> None:
    """Its neighbour, the same method at another rate, trains between its set-up, its fit and its evaluation."""
    with short(recipe, tmp_path, settings) as cli:
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
        images, names = images_of(cli), cli.model.classnames
        expected, alone = learned(cli.model), scores(cli.model, images, names)
    rate = {"model.lr": 0.03} if recipe != "mft" else {"model.lr_rule": 8.0}
    with short(recipe, tmp_path, settings) as cli, short(recipe, tmp_path, settings | rate) as others:
        others.trainer.fit(others.model, datamodule=others.datamodule)
        before = scores(others.model, images, names)
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
        assert torch.equal(scores(others.model, images, names), before)
        others.model.weights.interpolate(0.5)
        assert torch.equal(scores(cli.model, images, names), alone)
        for name, tensor in learned(cli.model).items():
            assert torch.equal(tensor, expected[name]), name
        assert not torch.equal(before, alone)
