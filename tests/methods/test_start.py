"""Two stages: a method that begins from what another one learned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from clipbench.errors import ConfigError, MethodError
from clipbench.methods.base import Method
from clipbench.methods.clipfit import CLIPFit
from clipbench.methods.coop import CoOp
from clipbench.methods.deliverable import load_method, save_deliverable

NAMES = ("forest", "golden retriever", "sea")


@pytest.fixture
def first(make: Callable[..., Method], tmp_path: Path) -> tuple[Path, torch.Tensor]:
    """The deliverable of a CLIPFit that moved, and its features of some classes."""
    method, path = make(CLIPFit, image_norms=False), tmp_path / "first.safetensors"
    with torch.no_grad():
        for parameter in method.built().values():
            parameter.add_(torch.linspace(-1, 1, parameter.numel()))
    features = method.class_features(NAMES).detach().clone()
    save_deliverable(path, method, "eurosat")
    method.release()
    return path, features


def test_it_begins_where_the_first_ended(make: Callable[..., Method], first: tuple[Path, torch.Tensor]) -> None:
    path, features = first
    method = make(CLIPFit, text_biases=False, start=str(path))
    assert torch.equal(method.class_features(NAMES), features)
    assert not method.starts_at_zero_shot
    zero_shot = method.zero_shot_features(NAMES)
    assert not torch.allclose(zero_shot, features, atol=1e-3), "the teacher is the pretrained model, not the start"
    assert not any(name.startswith("text.") for name in method.built())


def test_its_deliverable_needs_the_first_no_more(
    make: Callable[..., Method], first: tuple[Path, torch.Tensor], tmp_path: Path
) -> None:
    path, features = first
    method = make(CLIPFit, text_biases=False, start=str(path))
    save_deliverable(tmp_path / "second.safetensors", method, "eurosat")
    method.release()
    path.unlink()
    loaded = load_method(tmp_path / "second.safetensors")
    try:
        assert torch.equal(loaded.class_features(NAMES), features)
        loaded.interpolate(0.0)
        torch.testing.assert_close(loaded.class_features(NAMES), loaded.zero_shot_features(NAMES))
    finally:
        loaded.release()
    assert loaded.start_tensors == {}


def test_the_backbone_comes_back(make: Callable[..., Method], first: tuple[Path, torch.Tensor]) -> None:
    method = make(CLIPFit, start=str(first[0]))
    backbone = method.backbone
    method.release()
    assert backbone.compute_hash() == backbone.hash


def test_prompts_are_no_weights(make: Callable[..., Method], tmp_path: Path) -> None:
    method, path = make(CoOp), tmp_path / "coop.safetensors"
    save_deliverable(path, method, "eurosat")
    method.release()
    with pytest.raises(MethodError, match=r"CoOp learned .* is not in the weights alone"):
        make(CLIPFit, start=str(path))
    make(CLIPFit).release()  # the backbone is free again


def test_a_recipe_is_for_the_bench(make: Callable[..., Method]) -> None:
    with pytest.raises(ConfigError, match=r"no deliverable 'clipfit' .*clipbench bench"):
        make(CLIPFit, start="clipfit")


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_what_both_stages_trained_goes_back_to_the_pretrained_value(
    make: Callable[..., Method], first: tuple[Path, torch.Tensor], alpha: float
) -> None:
    method = make(CLIPFit, image_norms=False, start=str(first[0]))
    with torch.no_grad():
        for parameter in method.built().values():
            parameter.add_(torch.linspace(1, 0, parameter.numel()))
    learned = {name: parameter.detach().clone() for name, parameter in method.built().items()}
    method.interpolate(alpha)
    for name, parameter in method.built().items():
        expected = (1 - alpha) * method.backbone.pristine(name) + alpha * learned[name]
        torch.testing.assert_close(parameter.detach(), expected)
