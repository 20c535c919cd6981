"""Pixels, logits and types: float32 where it counts, bit-equal where it is promised."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision import transforms

from clipbench.backbone import PromptPlan
from clipbench.backbone.clip import Backbone
from clipbench.errors import BackboneError
from clipbench.testing import plain

PLAN = PromptPlan([[62, 1, 2, 63], [62, 1, 3, 4, 63]])


@pytest.fixture
def backbone(tiny: Any) -> Backbone:
    return tiny()


def test_normalise_is_bit_equal_to_the_classical_pipeline(backbone: Backbone) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    pixels[0].reshape(-1)[:256] = np.arange(256)
    mean, std = backbone.spec.preprocessing.mean, backbone.spec.preprocessing.std
    classical = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    expected = torch.stack([classical(Image.fromarray(image)) for image in pixels])
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    before = batch.clone()
    assert torch.equal(backbone.normalise(batch), expected)
    assert torch.equal(batch, before)


def test_logits_are_scaled_cosines_with_bias(tiny: Any) -> None:
    backbone = tiny(init_logit_bias=-3.0, custom_text=True)
    f, t = torch.randn(4, 12), torch.randn(3, 12)
    expected = torch.exp(torch.tensor(2.0)) * F.cosine_similarity(f[:, None], t[None], dim=-1) - 3.0
    torch.testing.assert_close(backbone.logits(f, t), expected)


def test_logits_are_float32_or_wider(backbone: Backbone) -> None:
    f, t = torch.randn(4, 12), torch.randn(3, 12)
    wide = backbone.logits(f, t)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(backbone.logits(f, t), wide)
        assert backbone.logits(f.bfloat16(), t.bfloat16()).dtype == torch.float32
    assert backbone.logits(f.double(), t).dtype == torch.float64


def test_bf16_autocast_runs_close_and_keeps_trained_tensors_wide(backbone: Backbone) -> None:
    pixels = torch.randn(2, 3, 16, 16)
    image, text = backbone.encode_image(pixels), backbone.encode_text(PLAN)
    view = backbone.view()
    trained = view.unfreeze(["text.blocks.0.mlp.proj.bias", "image.ln_pre.weight"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half_image, half_text = view.encode_image(pixels), view.encode_text(PLAN)
        logits = view.logits(half_image, half_text)
    assert F.cosine_similarity(half_image.float(), image).min() > 0.99
    assert F.cosine_similarity(half_text.float(), text).min() > 0.99
    assert logits.dtype == torch.float32
    logits.sum().backward()
    assert all(p.grad.dtype == torch.float32 and torch.isfinite(p.grad).all() for p in trained.values())


def test_float64_equals_the_plain_twin(backbone: Backbone) -> None:
    wide = backbone.double()
    pixels = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(wide.encode_image(pixels), plain.encode_image(wide, pixels), rtol=1e-11, atol=1e-12)
    assert wide.encode_text(PLAN).dtype == torch.float64


def test_gradients_of_the_image_tower_equal_the_plain_twin(backbone: Backbone) -> None:
    wide = backbone.double().view()
    trained = wide.unfreeze([f"image.{name}" for name, _ in wide.image.named_parameters()])
    pixels = torch.randn(2, 3, 16, 16)
    weights = torch.randn(2, 12).double()
    ours = torch.autograd.grad((wide.encode_image(pixels) * weights).sum(), trained.values())
    theirs = torch.autograd.grad((plain.encode_image(wide, pixels) * weights).sum(), trained.values())
    for name, a, b in zip(trained, ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11, msg=name)


def test_image_chunks_without_gradient_change_nothing(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.randn(7, 3, 16, 16)
    whole = backbone.encode_image(pixels)
    monkeypatch.setattr("clipbench.backbone.chunks.ACTIVATIONS", 1)
    with torch.no_grad():
        torch.testing.assert_close(backbone.encode_image(pixels), whole, rtol=1e-5, atol=1e-5)


def test_frozen_towers_record_no_graph(backbone: Backbone) -> None:
    assert not backbone.encode_image(torch.randn(1, 3, 16, 16)).requires_grad
    assert not backbone.encode_text(PLAN).requires_grad


def test_plain_context_managers_take_the_plain_path_and_let_go(backbone: Backbone) -> None:
    pixels = torch.randn(1, 3, 16, 16)
    with plain.plain_text(backbone), plain.plain_image(backbone):
        assert backbone.encode_text.__name__ == "<lambda>"
        torch.testing.assert_close(backbone.encode_image(pixels), Backbone.encode_image(backbone, pixels))
        torch.testing.assert_close(backbone.encode_text(PLAN), Backbone.encode_text(backbone, PLAN))
    assert "encode_text" not in vars(backbone)


def test_images_of_another_size_are_refused(backbone: Backbone) -> None:
    with pytest.raises(BackboneError, match="takes images of Bx3x16x16, not 2x3x20x20"):
        backbone.encode_image(torch.zeros(2, 3, 20, 20))
