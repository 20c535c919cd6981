"""Fine-tuning of selected tensors: which move, for how many steps, at which rate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from clipbench.errors import ConfigError
from clipbench.methods.fine_tuning import FineTuning
from clipbench.recipes.recipe import load_recipe, resolve
from clipbench.testing.subject import Subject

Make = Callable[..., FineTuning]


def test_full_leaves_the_token_table_and_the_scale_alone(make: Make) -> None:
    method = make(FineTuning)
    everything = {name for name, _ in method.backbone.named_parameters()}
    assert everything - set(method.trainable) == {"text.token_embedding.weight", "logit_scale"}
    assert sum(p.numel() for p in method.trainable.values()) == method.num_trainable()


@pytest.mark.parametrize(
    ("sentence", "ending"), [("both towers, biases", ".bias"), ("both towers, LayerNorm", ("weight", "bias"))]
)
def test_the_others_are_vectors_of_both_towers(make: Make, sentence: str, ending: Any) -> None:
    method = make(FineTuning, train=[sentence])
    assert {name.partition(".")[0] for name in method.trainable} == {"image", "text"}
    assert all(tensor.ndim == 1 and name.endswith(ending) for name, tensor in method.trainable.items())


def test_class_features_are_made_once_where_the_text_tower_is_frozen(make: Make) -> None:
    method = make(FineTuning, train=["image tower, everything"])
    assert method.class_features(method.classnames) is method.class_features(method.classnames)
    both = make(FineTuning)
    assert both.class_features(both.classnames) is not both.class_features(both.classnames)


def test_a_selection_that_means_nothing_is_refused(make: Make) -> None:
    with pytest.raises(ConfigError, match="token_embedding"):
        make(FineTuning, train=["text tower, everything, except token_embeddings"])


@pytest.mark.parametrize("name", ["bitfit", "layer_norm"])
@pytest.mark.parametrize("shots", [1, 2, 4, 8, 16])
def test_steps_by_shots(name: str, shots: int) -> None:
    context = {"suite": "clip11", "protocol": "base_to_novel", "dataset": "dtd", "shots": shots, "backbone": "x"}
    trainer = resolve(load_recipe(name), {"model": {}, "data": {}, "trainer": {}}, context)["trainer"]
    assert trainer == {"max_epochs": -1, "max_steps": 300 * shots}


def test_a_run_by_steps_follows_the_cosine_to_its_end(tmp_path: Path) -> None:
    rates: list[float] = []

    class Watch(L.Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    settings = {"trainer.max_epochs": -1, "trainer.max_steps": 5, "model.lr": 0.2, "model.final_lr": 0.1}
    with Subject("layer_norm", tmp_path, settings=settings).cli() as cli:
        cli.trainer.callbacks.append(Watch())
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
        assert cli.trainer.global_step == 5
        name, method = "image.ln_post.weight", cli.model
        assert not torch.equal(method.trainable[name], method.backbone.pretrained_tensor(name))
    torch.testing.assert_close(torch.tensor(rates), 0.1 + 0.05 * (1 + torch.cos(torch.pi * torch.arange(5) / 5)))
