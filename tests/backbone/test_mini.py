"""The embedded backbone through the same doors: no folder, no download, a closed list of words."""

from __future__ import annotations

import re

import pytest
import torch

from clipbench.backbone import PromptPlan, backbone_hash, load_backbone, require, resolve_spec
from clipbench.errors import BackboneError
from clipbench.testing import plain

pytestmark = pytest.mark.skipif(
    not __import__("clipbench.mini.weights", fromlist=["PATH"]).PATH.is_file(), reason="the mini weights are not built"
)


def test_it_has_every_ability_and_knows_its_pixels() -> None:
    spec = resolve_spec("mini")
    require(spec, {"image": {"transformer", "layer_norm"}, "text": {"transformer", "packed"}}, "any method")
    assert (spec.preprocessing.size, spec.preprocessing.mean, spec.preprocessing.std) == (48, (0.5,) * 3, (0.25,) * 3)
    assert spec.activation == "gelu"


def test_features_equal_the_plain_twin_and_the_hash_is_its_tensors() -> None:
    backbone = load_backbone("mini")
    assert backbone_hash("mini") == backbone.hash == backbone.compute_hash()
    plan = PromptPlan(backbone.tokenize(["a photo of a red star.", "a photo of a blue star."]))
    pixels = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        text, image = backbone.encode_text(plan), backbone.encode_image(pixels)
        torch.testing.assert_close(text, plain.encode_text(backbone, plan), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(image, plain.encode_image(backbone, pixels), rtol=1e-4, atol=1e-5)


def test_a_word_that_it_does_not_know_is_named() -> None:
    with pytest.raises(BackboneError, match=re.escape("word 'parachute' of the prompt 'a photo of a parachute.'")):
        load_backbone("mini").tokenize(["a photo of a parachute."])
