"""One step of every recipe on a ViT-B/16 of random weights, on rendered images in files, with clip11's settings."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from clipbench.data.preprocessing import backbone_of_suite
from clipbench.recipes.recipe import known_recipes, load_recipe
from clipbench.recipes.suites import Suite
from clipbench.testing.folders import suite_of_mini
from clipbench.testing.subject import Subject, images_of, learned_by, scores

VIT, CLASSES, IMAGES = "ViT-B-16/random", 2, 2
ONE_STEP = {"trainer.max_epochs": 1, "trainer.max_steps": 1, "data.batch_size": 3}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """Two train, val and test images of four classes of EuroSAT, two of them base, in files; recipes see clip11."""
    files = suite_of_mini(tmp_path_factory.mktemp("images"), "eurosat")
    manifest = Path(files.datasets["images"]["init_args"]["path"])
    with manifest.open(newline="") as lines:
        head, *rows = csv.reader(lines)
    few = [row for row in rows if int(row[1]) < 2 * CLASSES and int(Path(row[0]).stem.partition("_")[2]) < IMAGES]
    with manifest.open("w", newline="") as file:
        csv.writer(file).writerows([head, *few])
    assert backbone_of_suite("clip11").partition("/")[0] == VIT.partition("/")[0]
    return Suite("clip11", VIT, files.datasets)


def settings_of_one_step(recipe: str) -> dict[str, Any]:
    """One step, features of one pass where a recipe asks for several, and a cache as large as its file says."""
    arguments = load_recipe(recipe).sections["model"].get("init_args") or {}
    kept = {f"model.{name}": value for name, value in (("passes", 1), ("cache_size", 16)) if name in arguments}
    return ONE_STEP | kept


def stated(recipe: str) -> int:
    """What the file of a recipe says is trained with so many classes."""
    parameters = load_recipe(recipe).about["parameters"]
    if isinstance(parameters, dict):
        return int(parameters.get("fixed", 0) + CLASSES * parameters["per_class"])
    return int(parameters)


@pytest.mark.parametrize("recipe", known_recipes())
def test_every_recipe_makes_a_step(recipe: str, suite: Suite, tmp_path: Path) -> None:
    """What starts from another recipe makes it after that one's; what is derived moves off what the other learned."""
    subject = Subject(recipe, tmp_path, suite, "images", settings_of_one_step(recipe))
    with subject.cli() as cli:
        method = cli.model
        assert (len(method.classnames), method.backbone.embed_dim) == (CLASSES, 512)
        assert sum(tensor.numel() for tensor in method.trainable.values()) == stated(recipe)
        learned = method.adapter_state_dict() if method.derived else learned_by(method)
        before = {name: tensor.detach().clone() for name, tensor in learned.items()}
        if not method.derived:
            subject.fit(cli)
            assert cli.trainer.global_step == (1 if method.trainable and method.has_optimizer else 0)
            assert bool(method.last_losses) == bool(method.trainable)
        after = learned_by(method)
        assert any(not torch.equal(after[name], before[name]) for name in before) == method.learns, "nothing has moved"
        for value in (*after.values(), *method.last_losses.values()):
            assert value.isfinite().all()
        logits = scores(method, images_of(cli, 2), method.classnames)
        assert logits.shape == (2, CLASSES)
        assert logits.isfinite().all()
