"""R-AMT against its formulas: masks, penalty, the gradient made of two, and runs in which nothing can flip."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from clipbench.bench.build import method_without_weights
from clipbench.bench.trained_parameters import trained_by
from clipbench.errors import BackboneError, ClipbenchWarning, ConfigError, UnreadSetting
from clipbench.methods.ramt import RAMT, keep_probability, regularised
from clipbench.testing.subject import Subject, pretrained_logits
from clipbench.tuning.noise import Noise

VIT = "ViT-B-16/random"
Make = Callable[..., Any]


def pixels(count: int = 3, size: int = 32) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("recipe", ["ramt", "amt"])
def test_counts(recipe: str) -> None:
    assert trained_by(recipe, VIT)["trained_parameters"] == 28_901_376


def test_counts_with_the_mlp_and_of_bits() -> None:
    method = method_without_weights(RAMT, {"backbone": VIT, "mask_mlp": True}, classes=2)
    trained = method.trainable
    expected = 28_901_376 + 12 * 2 * 768 * 3072
    assert sum(scores.numel() for scores in trained.values()) == method.num_trainable() == expected
    assert len(trained) == 12 * 6 + 1
    assert sum(tensor.numel() for tensor in method.adapter_state_dict().values()) == expected // 8


def test_it_begins_at_zero_shot_to_the_bit(make: Make) -> None:
    method = make(RAMT)
    assert method.masks.diagnostics()["kept"] == 1
    with torch.no_grad():
        found = method.logits(method.image_features(pixels()), method.class_features(method.classnames))
    assert torch.equal(found, pretrained_logits(method, pixels(), method.classnames))


# The gradient


def test_the_keep_probability_of_the_reference() -> None:
    g_a, g_b = torch.tensor([1.0, 1, -2, 0, 0.5]), torch.tensor([2.0, -1, 6, 3, -0.1])
    torch.testing.assert_close(keep_probability(g_a, g_b), torch.tensor([1, 0.5, 0.25, 0.5, 0.8333]), atol=1e-4, rtol=0)


def test_the_keep_probability_is_as_it_is_said_in_words() -> None:
    random = torch.Generator().manual_seed(0)
    g_a, g_b = (torch.randn(500, generator=random, dtype=torch.float64) for _ in range(2))
    for a, b, p in zip(g_a.tolist(), g_b.tolist(), keep_probability(g_a, g_b).tolist(), strict=True):
        assert p == pytest.approx(1.0 if a * b > 0 else abs(a) / (abs(a) + abs(b)), abs=1e-6)


def test_what_is_dropped_of_a_two_by_two() -> None:
    g_a, g_b = torch.tensor([[1.0, 1.0], [-2.0, 0.0]]), torch.tensor([[2.0, -1.0], [6.0, 3.0]])  # P: 1 .5 .25 .5
    uniform = torch.tensor([[0.99, 0.6], [0.2, 0.4]])  # kept, dropped, kept, kept but 0
    assert regularised(g_a, g_b, uniform, 1.0).tolist() == [[1, 0], [-2, 0]]
    assert regularised(g_a, g_b, uniform, 0.0).tolist() == g_a.tolist()
    torch.testing.assert_close(regularised(g_a, g_b, uniform, 0.3), torch.tensor([[1, 0.7], [-2, 0]]))


def test_the_norms_are_over_stacked_attention(make: Make) -> None:
    method = make(RAMT, mask_mlp=True)
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for scores in method.trainable.values():
            scores.copy_(torch.randn(scores.shape, generator=random))
    value = {name.removesuffix(".weight.scores"): s.detach().double() for name, s in method.trainable.items()}
    expected = float(value["image.patch_embed"].square().sum().sqrt())
    for block in range(2):
        path = f"image.blocks.{block}"
        stacked = torch.cat([value[f"{path}.attn.{which}_proj"] for which in "qkv"])
        assert stacked.shape == (3 * 48, 48)
        others = [value[f"{path}.{which}"] for which in ("attn.out_proj", "mlp.fc", "mlp.proj")]
        expected += sum(float(x.square().sum().sqrt()) for x in (stacked, *others))
    assert method.norms().item() == pytest.approx(expected, rel=1e-6)
    logits, classes = torch.zeros(1, 3), method.class_features(method.classnames)
    terms = method.losses(logits, torch.tensor([0]), classes)
    assert terms["norms"].item() == pytest.approx(1e-4 * expected, rel=1e-6)


@pytest.fixture
def two_steps(tmp_path: Path) -> Iterator[tuple[Any, list[Any], dict[str, Tensor]]]:
    """A method of gdr_lambda 0.7, the batches of its two plain gradient steps, and its scores after the first."""
    batches: list[Any] = []
    after_first: dict[str, Tensor] = {}

    class Keep(L.Callback):
        def on_train_batch_start(self, trainer: Any, method: Any, batch: Any, index: int) -> None:
            if index == 1:
                after_first.update({name: s.detach().clone() for name, s in method.trainable.items()})
            batches.append(batch)

    settings = {"model.gdr_lambda": 0.7, "model.optimizer": "sgd", "model.momentum": 0.0, "model.schedule": "constant"}
    subject = Subject("ramt", tmp_path, settings=settings)
    with subject.cli(**{"trainer.max_epochs": 1, "trainer.max_steps": 2, "model.lr": 5.0}) as cli:
        subject.fit(cli, Keep())
        yield cli.model, batches, after_first


def test_two_training_steps_are_those_of_the_formulas(two_steps: tuple[Any, list[Any], dict[str, Tensor]]) -> None:
    method, batches, after_first = two_steps
    done = {name: s.detach().clone() for name, s in method.trainable.items()}
    scores = list(method.trainable.values())
    start = [torch.full_like(s, 1e-2) for s in scores]
    turned = 0
    for step, (batch, wanted) in enumerate(zip(batches, (after_first, done), strict=True)):
        with torch.no_grad():
            for s, value in zip(scores, start, strict=True):
                s.copy_(value)
        images = method.backbone.normalise(batch.image)
        with torch.no_grad():
            teacher = pretrained_logits(method, images, method.classnames)
        logits = method.logits(method.image_features(images), method.class_features(method.classnames))
        picked = logits.log_softmax(-1)[torch.arange(len(batch.label)), batch.label]
        g_a = torch.autograd.grad(-picked.mean() + 1e-4 * method.norms(), scores, retain_graph=True)
        g_b = torch.autograd.grad(-(teacher.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean(), scores)
        noise = Noise(method.train_seed, "gradient dropout")
        noise.begin_step(step)
        for i, (a, b) in enumerate(zip(g_a, g_b, strict=True)):
            uniform = torch.rand(a.shape, generator=noise.generator("cpu"))
            p = 0.5 * (1 + a.sign() * (a + b) / (a.abs() + b.abs() + 1e-8))
            start[i] = start[i] - 5.0 * (0.3 + 0.7 * (p > uniform).float()) * a
            turned += int((start[i] <= 5e-3).sum())
        for value, name in zip(start, method.trainable, strict=True):
            torch.testing.assert_close(wanted[name], value, rtol=1e-4, atol=1e-6)
    assert turned > 0, "the second step runs with masks"


def test_the_gradient_is_put_together_at_the_scale_of_mixed_precision(make: Make) -> None:
    """What dropped at scale 1 is dropped at scale 1024 too, and the gradient keeps its scale."""
    method, made = make(RAMT), []
    random = torch.Generator().manual_seed(0)
    pairs = [tuple(torch.randn(s.shape, generator=random) * 1e-7 for _ in range(2)) for s in method.trainable.values()]
    for scale in (1.0, 1024.0):
        scaler = SimpleNamespace(get_scale=lambda scale=scale: scale)
        method._loss_scale = lambda scaler=scaler: scaler.get_scale()
        method.noise.begin_step(0)
        for parameter, (g_a, _) in zip(method.trainable.values(), pairs, strict=True):
            parameter.grad = g_a * scale
        method._g_b = [(p, g_b * scale) for p, (_, g_b) in zip(method.trainable.values(), pairs, strict=True)]
        method.on_after_backward()
        made.append([parameter.grad / scale for parameter in method.trainable.values()])
    for one, other in zip(*made, strict=True):
        assert torch.equal(one, other)
        assert (one == 0).any()


def test_without_regularity_there_is_no_frozen_twin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject("amt", tmp_path)
    with subject.cli(**{"trainer.max_epochs": 1, "model.lr": 0.01}) as cli:
        twin = cli.model.backbone.pretrained
        monkeypatch.setattr(twin, "encode_image", lambda images: pytest.fail("a twin"))
        before = [s.detach().clone() for s in cli.model.trainable.values()]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ClipbenchWarning)
            subject.fit(cli)
        assert not any(torch.equal(a, b) for a, b in zip(before, cli.model.trainable.values(), strict=True))
        assert cli.model.last_losses.keys() == {"cross_entropy", "norms", "total"}


# Prompts, settings, and runs in which nothing can happen


def test_class_names_are_written_in_lower_case(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    method, texts = make(RAMT), []
    tokenize = method.backbone.tokenize
    monkeypatch.setattr(method.backbone, "tokenize", lambda some: texts.extend(some) or tokenize(some))
    method.class_features(("Golden Retriever", "Sea_or_Lake"))
    assert texts == ["a photo of a golden retriever.", "a photo of a sea or lake."]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"gdr_lambda": 1.5}, "between 0 and 1"),
        ({"score_init": 1e-3}, "above threshold"),
        ({"penalty": -1.0}, "penalty"),
    ],
)
def test_settings_that_cannot_be(small: str, arguments: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        RAMT(backbone=small, **arguments)  # type: ignore[arg-type]


def test_a_setting_that_nothing_reads_is_refused(small: str) -> None:
    with pytest.raises(UnreadSetting, match=r"momentum=0\.9 .* adam"):
        RAMT(backbone=small, optimizer="adam", momentum=0.9)


def test_a_resnet_is_refused() -> None:
    with pytest.raises(BackboneError, match=r"RAMT.*image tower"):
        RAMT(backbone="RN50/random")


def test_a_run_that_cannot_flip_a_mask_says_so_and_ends_at_zero_shot(tmp_path: Path) -> None:
    subject = Subject("ramt", tmp_path)
    with subject.cli(**{"model.lr": 8e-5}) as cli:  # 2 epochs of 2 steps: (2 + 1) x 8e-5 = 0.00024
        with pytest.warns(
            ClipbenchWarning, match=r"fall by 0\.005 from 0\.01 to 0\.005.*4 planned steps sum to 0\.00024"
        ):
            subject.fit(cli)
        found = cli.model.diagnostics
    assert found["sum_of_learning_rates"] == pytest.approx(3 * 8e-5)
    assert found["kept"] == 1
    assert found["turned"] == 0


def test_a_run_that_can_is_silent_and_tells_what_is_masked(tmp_path: Path) -> None:
    subject = Subject("ramt", tmp_path)
    with subject.cli(**{"model.lr": 0.01}) as cli:
        subject.fit(cli)  # a warning would be an error here
        found, masks = cli.model.diagnostics, cli.model.masks.masks
        masked = sum(int((mask.scores <= 5e-3).sum()) for mask in masks.values())
        total = sum(mask.scores.numel() for mask in masks.values())
        weight = masks["image.blocks.0.attn.q_proj.weight"]
    assert 0 < masked < total
    assert found["kept"] == pytest.approx(1 - masked / total)
    assert found["turned"] == pytest.approx(masked / total)
    assert found["kept_by_matrix"]["image.blocks.0.attn.q_proj.weight"] == pytest.approx(weight.kept(), abs=1e-6)


def test_accumulated_gradients_are_refused_with_regularity(tmp_path: Path) -> None:
    subject = Subject("ramt", tmp_path)
    settings = {"model.lr": 0.01, "trainer.accumulate_grad_batches": 2}
    with subject.cli(**settings) as cli, pytest.raises(ConfigError, match="accumulate_grad_batches"):
        subject.fit(cli)
