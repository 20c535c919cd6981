"""PromptSRC: its loss in float64, its teacher, and the average over the epochs, also resumed and cut short."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from clipbench import FewShotDataModule
from clipbench.backbone import PromptPlan
from clipbench.bench.build import quiet_lightning
from clipbench.data.task import Task
from clipbench.data.templates import template_set
from clipbench.errors import ConfigError
from clipbench.methods.promptsrc import PromptSRC
from tests.methods.small import BASE

SHALLOW = {"text_depth": 1, "image_depth": 2, "n_text_prompts": 2, "n_image_prompts": 3}
TEACHER = ("a photo of a {}.", "the plastic {}.", "itap of the {}.")


def unit(x: Tensor) -> Tensor:
    return torch.stack([row / math.sqrt(float(row @ row)) for row in x])


def test_the_loss_is_the_formula(make: Callable[..., PromptSRC]) -> None:
    method = make(PromptSRC, **SHALLOW).double()
    method.templates = method.prompts.templates = TEACHER
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((4, 3, 32, 32), generator=generator, dtype=torch.float64)
    with torch.no_grad():
        classes, features = method.class_features(BASE), method.image_features(images)
        logits = method.logits(features, classes)
        terms = method.regularisation(images, features, logits, classes)
        twin = method.backbone.pretrained
        raw = []
        for name in BASE:
            texts = [template.replace("{}", name) for template in TEACHER]
            raw.append(twin.encode_text(PromptPlan(twin.tokenize(texts))).mean(dim=0))
        t0, v0, t, v = unit(torch.stack(raw)), unit(twin.encode_image(images)), unit(classes), unit(features)
        scale = float(twin.logit_scale.exp())
        p, p0 = ((scale * a @ b.T).softmax(dim=1) for a, b in ((v, t), (v0, t0)))
    kl = sum(float(b * (b.log() - a.log())) for a, b in zip(p.flatten(), p0.flatten(), strict=True)) / p.numel()
    expected = {
        "text_agreement": 25 * float((t - t0).abs().sum()) / t.numel(),
        "image_agreement": 10 * float((v - v0).abs().sum()) / v.numel(),
        "logit_agreement": kl,
    }
    assert {name: float(term) for name, term in terms.items()} == pytest.approx(expected, rel=1e-10)
    assert min(expected.values()) > 1e-4


def test_the_teacher_speaks_sixty_sentences_about_every_dataset(small: str) -> None:
    method = PromptSRC(backbone=small, template_set="promptsrc", **SHALLOW)
    for dataset in ("eurosat", "imagenet", "something else"):
        method.setup(task=Task(dataset, None, BASE, ()))
        assert method.templates == template_set("promptsrc").default
    assert len(set(method.templates)) == 60
    assert sum(template.startswith(("itap", "art", "graffiti")) for template in method.templates) == 3


def test_without_difference_there_is_no_loss_of_agreement(make: Callable[..., PromptSRC]) -> None:
    method = make(PromptSRC, **SHALLOW).double()
    images = torch.randn((2, 3, 32, 32), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    twin = method.backbone.pretrained
    with torch.no_grad():
        classes = 3 * method.prompts.pretrained_features(BASE)
        features = 2 * twin.encode_image(images)
        terms = method.regularisation(images, features, twin.logits(features, classes), classes)
    assert all(abs(float(term)) < 1e-10 for term in terms.values())


def test_senseless_weights_are_refused(make: Callable[..., PromptSRC]) -> None:
    with pytest.raises(ConfigError, match=r"weights of PromptSRC must not be below 0: text_weight=-1"):
        make(PromptSRC, text_weight=-1.0)
    with pytest.raises(ConfigError, match="a standard deviation above 0, it is 0"):
        make(PromptSRC, average_std=0.0)
    with pytest.raises(ConfigError, match=r"text_depth of PromptSRC is 9, but the text tower of '.*' has 2 blocks"):
        make(PromptSRC)


# Fits on mini

MEAN, STD = 2.0, 1.0


class Watch(L.Callback):
    """The trained tensors at the end of each epoch, before the average is put in place."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Tensor]] = []

    def on_train_epoch_end(self, trainer: Any, method: Any) -> None:
        self.seen.append({name: p.detach().double().clone() for name, p in method.trainable.items()})


def fitted(epochs: int = 3, ckpt_path: str | None = None, **settings: Any) -> tuple[PromptSRC, Watch]:
    quiet_lightning()
    method = PromptSRC(backbone="mini", average_mean=MEAN, average_std=STD, lr=0.05, warmup_epochs=0, **SHALLOW)
    watch, more = Watch(), settings.pop("callbacks", [])
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    settings = {"max_epochs": epochs, "limit_val_batches": 0, "enable_checkpointing": bool(more)} | settings
    trainer = L.Trainer(callbacks=[watch, *more], **quiet, **settings)
    data = FewShotDataModule("mini/dtd", shots=2, batch_size=8, seed=1)
    trainer.fit(method, data, ckpt_path=ckpt_path)
    return method, watch


def is_the_average(method: PromptSRC, watch: Watch) -> None:
    weights = [math.exp(-0.5 * ((epoch - MEAN) / STD) ** 2) for epoch in range(1, len(watch.seen) + 1)]
    for name, parameter in method.trainable.items():
        expected = sum(w * seen[name] for w, seen in zip(weights, watch.seen, strict=True)) / sum(weights)
        torch.testing.assert_close(parameter.detach().double(), expected, rtol=0, atol=1e-6)
        assert not torch.equal(parameter.detach().double(), watch.seen[-1][name])


def test_what_is_tested_is_the_average_and_a_resumed_fit_has_the_same(tmp_path: Path) -> None:
    keep = ModelCheckpoint(dirpath=tmp_path, filename="{epoch}", save_top_k=-1)
    whole, watch = fitted(callbacks=[keep])
    assert len(watch.seen) == 3
    is_the_average(whole, watch)
    resumed, rest = fitted(ckpt_path=str(tmp_path / "epoch=1.ckpt"))
    assert len(rest.seen) == 1
    for name, parameter in whole.trainable.items():
        assert torch.equal(parameter, resumed.trainable[name])
    last = PromptSRC.load_from_checkpoint(tmp_path / "epoch=2.ckpt")
    assert all(torch.equal(p, last.trainable[name]) for name, p in whole.trainable.items())
    assert not whole.average.values, "a further fit begins its average anew"


def test_a_fit_that_is_cut_short_has_the_average_of_its_epochs() -> None:
    class Stop(L.Callback):
        def on_train_epoch_end(self, trainer: Any, method: Any) -> None:
            trainer.should_stop = trainer.current_epoch == 1

    method, watch = fitted(epochs=5, callbacks=[Stop()], enable_checkpointing=False)
    assert len(watch.seen) == 2
    is_the_average(method, watch)
