"""Two stages: a method that begins from what another one learned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from clipbench.backbone.clip import load_backbone
from clipbench.errors import MethodError
from clipbench.methods.base import Method
from clipbench.methods.clipfit import CLIPFit
from clipbench.methods.coop import CoOp
from clipbench.methods.zero_shot import ZeroShot

NAMES = ("forest", "golden retriever", "sea")


@pytest.fixture
def first(make: Callable[..., Method], tmp_path: Path) -> tuple[Path, torch.Tensor]:
    """The weights of a CLIPFit that moved, and its features of some classes."""
    method, path = make(CLIPFit, image_norms=False), tmp_path / "first.safetensors"
    with torch.no_grad():
        for parameter in method.trainable.values():
            parameter.add_(torch.linspace(-1, 1, parameter.numel()))
    features = method.class_features(NAMES).detach().clone()
    method.save(path)
    return path, features


def test_it_begins_where_the_first_ended(make: Callable[..., Method], first: tuple[Path, torch.Tensor]) -> None:
    path, features = first
    method = make(CLIPFit, text_biases=False, start=str(path))
    assert torch.equal(method.class_features(NAMES), features)
    zero_shot = method.prompts.pretrained_features(NAMES)
    assert not torch.allclose(zero_shot, features, atol=1e-3), "the teacher is the pretrained model, not the start"
    assert not any(name.startswith("text.") for name in method.trainable)


def test_every_method_can_begin_there(make: Callable[..., Method], first: tuple[Path, torch.Tensor]) -> None:
    path, features = first
    assert torch.equal(make(ZeroShot, start=str(path)).class_features(NAMES), features)


def test_the_file_is_named_by_its_content_wherever_it_lies(
    make: Callable[..., Method], first: tuple[Path, torch.Tensor], tmp_path: Path
) -> None:
    path, _ = first
    moved = tmp_path / "elsewhere" / path.name
    moved.parent.mkdir()
    moved.write_bytes(path.read_bytes())
    for number, place in enumerate((str(path), path, moved)):
        make(CLIPFit, start=place).save(tmp_path / f"{number}.safetensors")
    assert len({(tmp_path / f"{number}.safetensors").read_bytes() for number in range(3)}) == 1


def test_its_weights_need_the_first_no_more(
    make: Callable[..., Method], first: tuple[Path, torch.Tensor], tmp_path: Path
) -> None:
    path, features = first
    method = make(CLIPFit, text_biases=False, start=str(path))
    method.save(tmp_path / "second.safetensors")
    path.unlink()
    loaded = Method.load(tmp_path / "second.safetensors")
    assert torch.equal(loaded.class_features(NAMES), features)
    loaded.weights.interpolate(0.0)
    torch.testing.assert_close(loaded.class_features(NAMES), loaded.prompts.pretrained_features(NAMES))


def test_the_backbone_stays_as_it_was(
    make: Callable[..., Method], first: tuple[Path, torch.Tensor], small: str
) -> None:
    make(CLIPFit, start=str(first[0]))
    backbone = load_backbone(small)
    assert backbone.compute_hash() == backbone.hash


def test_prompts_are_no_weights(make: Callable[..., Method], tmp_path: Path) -> None:
    method, path = make(CoOp), tmp_path / "coop.safetensors"
    method.save(path)
    with pytest.raises(MethodError, match=r"start: .* is not in the backbone's weights alone"):
        make(CLIPFit, start=str(path))


def test_a_recipe_is_for_the_bench(make: Callable[..., Method]) -> None:
    with pytest.raises(MethodError, match=r"no file of learned weights 'clipfit' .*clipbench bench"):
        make(CLIPFit, start="clipfit")


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_what_both_stages_trained_goes_back_to_the_pretrained_value(
    make: Callable[..., Method], first: tuple[Path, torch.Tensor], alpha: float
) -> None:
    method = make(CLIPFit, image_norms=False, start=str(first[0]))
    with torch.no_grad():
        for parameter in method.trainable.values():
            parameter.add_(torch.linspace(1, 0, parameter.numel()))
    learned = {name: parameter.detach().clone() for name, parameter in method.trainable.items()}
    method.weights.interpolate(alpha)
    for name, parameter in method.trainable.items():
        expected = (1 - alpha) * method.backbone.pretrained_tensor(name) + alpha * learned[name]
        torch.testing.assert_close(parameter.detach(), expected)
