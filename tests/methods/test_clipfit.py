"""CLIPFit against its formulas and the counts that were measured with the official classes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from clipbench.bench.trained_parameters import trained_by
from clipbench.errors import ClipbenchWarning, ConfigError
from clipbench.methods.clipfit import CLIPFit
from clipbench.testing.backbones import write_batchnorm
from clipbench.tuning.distillation import distance


def test_distillation_is_half_the_mean_squared_distance_of_unit_vectors() -> None:
    generator = torch.Generator().manual_seed(0)
    now, before = torch.randn(7, 5, generator=generator).double(), torch.randn(7, 5, generator=generator).double()
    unit = [[x / sum(y * y for y in row) ** 0.5 for x in row] for row in now.tolist()]
    other = [[x / sum(y * y for y in row) ** 0.5 for x in row] for row in before.tolist()]
    squared = [sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) for a, b in zip(unit, other, strict=True)]
    assert float(distance(now, before)) == pytest.approx(sum(squared) / len(squared) / 2, abs=1e-6)


@pytest.mark.parametrize(
    ("backbone", "count"),
    [("ViT-B-16/openai", 46_080), ("ViT-B-32/openai", 46_080), ("ViT-L-14/openai", 111_616)],
)
def test_counts_on_openai_backbones(backbone: str, count: int) -> None:
    facts = trained_by("clipfit", backbone)
    assert facts["trained_parameters"] == count
    assert {part["tower"] for part in facts["parts"]} == {"text", "image"}


def test_a_resnet_tower_has_no_layer_norm_so_text_biases_alone_are_trained() -> None:
    with pytest.warns(ClipbenchWarning, match="no LayerNorm"):
        facts = trained_by("clipfit", "RN50/openai")
    assert facts["trained_parameters"] == 6_144
    assert [part["tower"] for part in facts["parts"]] == ["text"]


def test_what_is_trained(make: Callable[..., CLIPFit]) -> None:
    method = make(CLIPFit)
    names = list(method.trainable)
    assert [name for name in names if name.startswith("text.")] == [f"text.blocks.{i}.mlp.proj.bias" for i in range(2)]
    image = [name for name in names if name.startswith("image.")]
    assert len(image) == 2 * (2 + 2 * 2)
    assert all(".ln_" in name or "ln_p" in name for name in image)
    assert sum(p.numel() for p in method.trainable.values()) == method.num_trainable() == 2 * 32 + 2 * 6 * 48


def test_a_tower_without_norms_says_so(make: Callable[..., CLIPFit], tmp_path: object) -> None:
    with pytest.warns(ClipbenchWarning, match="text biases alone"):
        method = make(CLIPFit, backbone=write_batchnorm(tmp_path / "bn"))  # type: ignore[operator]
    assert method.num_trainable() == 64


def test_the_loss_starts_as_pure_cross_entropy(make: Callable[..., CLIPFit]) -> None:
    method = make(CLIPFit)
    classes = method.class_features(method.classnames)
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    terms = method.losses(logits, torch.tensor([0, 1, 2, 0]), classes)
    assert list(terms) == ["cross_entropy", "distillation"]
    assert abs(float(terms["distillation"].detach())) < 1e-5
    biases = [tensor for name, tensor in method.trainable.items() if name.startswith("text.")]
    gradients = torch.autograd.grad(terms["distillation"], biases)
    assert all(gradient.abs().max() < 1e-5 for gradient in gradients)


def test_the_weight_multiplies_the_distillation_term(make: Callable[..., CLIPFit]) -> None:
    light, logits, labels = make(CLIPFit, distillation_weight=2.0), torch.zeros(1, 3), torch.tensor([0])
    with torch.no_grad():
        light.trainable["text.blocks.1.mlp.proj.bias"].add_(torch.linspace(-1, 1, 32))
    classes = light.class_features(light.classnames)
    expected = 2 * (1 - torch.cosine_similarity(classes, light.prompts.pretrained_features(light.classnames)).mean())
    assert float(expected) > 1e-3
    torch.testing.assert_close(light.losses(logits, labels, classes)["distillation"], expected)


def test_training_nothing_is_refused(small: str) -> None:
    with pytest.raises(ConfigError, match="trains nothing"):
        CLIPFit(backbone=small, text_biases=False, image_norms=False)
