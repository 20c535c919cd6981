"""A view of the backbone: what a method trains and replaces there, while the backbone stays bit-identical."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clipbench.backbone.clip import Backbone, build_backbone
from clipbench.backbone.view import BackboneView
from clipbench.errors import BackboneError, UnknownName
from clipbench.testing import backbones
from tests.backbone.in_views import NAMES, PLAN, Doubled, Halved, Scaled, equal, features, pixels, train


@pytest.fixture
def backbone(tiny: Any) -> Backbone:
    return tiny()


@pytest.fixture
def view(backbone: Backbone) -> BackboneView:
    return backbone.view()


@pytest.fixture(params=["transformer", "batchnorm"])
def any_backbone(request: pytest.FixtureRequest, tiny: Any, tmp_path: Path) -> Backbone:
    """Ours, and one whose image tower has BatchNorm and dropout."""
    return tiny() if request.param == "transformer" else build_backbone(backbones.write_batchnorm(tmp_path / "bn"))


def test_a_view_is_the_backbone_to_the_bit_on_the_same_storage(any_backbone: Backbone) -> None:
    view = any_backbone.view()
    assert equal(features(view), features(any_backbone))
    assert view.compute_hash() == any_backbone.hash == view.hash
    own = dict(any_backbone.named_parameters())
    assert {name for name, _ in view.named_parameters()} == set(own)
    for name, parameter in view.named_parameters():
        assert parameter is not own[name]
        assert parameter.data_ptr() == own[name].data_ptr()
        assert not parameter.requires_grad
    buffers = dict(any_backbone.named_buffers())
    assert all(buffer.data_ptr() != buffers[name].data_ptr() for name, buffer in view.named_buffers())
    assert view.pretrained is any_backbone


def test_nothing_that_is_done_to_a_view_reaches_the_backbone(any_backbone: Backbone) -> None:
    before = {name: tensor.clone() for name, tensor in any_backbone.state_dict().items()}
    expected = features(any_backbone)
    linear = "text.blocks.1.mlp.fc"
    every = [name for name, _ in any_backbone.named_parameters()]

    def trained() -> BackboneView:
        view = any_backbone.view()
        tensors = view.unfreeze(every)
        scaled = view.replace_linear(linear, Scaled)
        train(view, [*tensors.values(), scaled.factor])  # type: ignore[list-item]
        assert not equal(features(view), expected)
        return view

    def with_other_tensors() -> BackboneView:
        view = any_backbone.view()
        view.replace_tensors({name: torch.zeros_like(any_backbone.get_parameter(name)) for name in every})
        assert not any(p.data_ptr() == any_backbone.get_parameter(n).data_ptr() for n, p in view.named_parameters())
        return view

    def parametrized() -> BackboneView:
        view, halved = any_backbone.view(), Halved()
        view.parametrize("text.proj", halved)
        train(view, [halved.factor])
        return view

    def with_other_statistics() -> BackboneView:
        view = any_backbone.view()
        for buffer in view.buffers():
            buffer.mul_(2)
        return view

    def merging() -> BackboneView:
        view = any_backbone.view()
        view.replace_linear(linear, Doubled)
        with view.merged():
            features(view)
        return view

    makers = (trained, with_other_tensors, parametrized, with_other_statistics, merging, any_backbone.view)
    for make in makers:
        for convert in (lambda v: v, lambda v: v.half(), lambda v: v.double(), lambda v: v.to("meta")):
            convert(make())
            assert all(torch.equal(tensor, before[name]) for name, tensor in any_backbone.state_dict().items())
    assert equal(features(any_backbone), expected)
    assert any_backbone.compute_hash() == any_backbone.hash
    assert not any(p.requires_grad or p.grad is not None for p in any_backbone.parameters())
    assert not any(module.training for module in any_backbone.modules())


def test_unfrozen_tensors_are_trainable_clones_of_the_views_own(backbone: Backbone, view: BackboneView) -> None:
    trained = view.unfreeze(NAMES)
    assert list(trained) == NAMES
    assert {name for name, p in view.named_parameters() if p.requires_grad} == set(NAMES)
    for name, parameter in trained.items():
        assert torch.equal(parameter, backbone.get_parameter(name))
        assert parameter.data_ptr() != backbone.get_parameter(name).data_ptr()
        assert view.get_parameter(name) is parameter
    assert view.unfreeze(NAMES[:1])[NAMES[0]] is trained[NAMES[0]], "asked for twice it is the same"
    view.refuse_shared(trained)


def test_a_tensor_that_somebody_made_trainable_in_place_is_still_cloned(backbone: Backbone, view: BackboneView) -> None:
    """`requires_grad_` of torch knows nothing of the backbone, whose storage an optimiser would write into."""
    view.requires_grad_(True)
    with pytest.raises(BackboneError, match=r"'image\.proj' is to be trained, but it is the backbone's own: unfr"):
        view.refuse_shared({"image.proj": view.get_parameter("image.proj")})
    trained = view.unfreeze(["image.proj"])
    view.refuse_shared(trained)
    assert trained["image.proj"].data_ptr() != backbone.get_parameter("image.proj").data_ptr()


def test_two_views_live_side_by_side(backbone: Backbone) -> None:
    alone = backbone.view()
    train(alone, list(alone.unfreeze(NAMES).values()))
    expected = features(alone)
    first, second = backbone.view(), backbone.view()
    tensors = list(first.unfreeze(NAMES).values())
    others = [*second.unfreeze(NAMES).values(), second.replace_linear("image.blocks.0.mlp.fc", Scaled).factor]
    for _ in range(3):
        train(first, tensors, steps=1)
        train(second, others, steps=1)  # type: ignore[arg-type]
    assert equal(features(first), expected)
    assert not equal(features(second), expected)


def test_the_frozen_twin_is_the_backbone_while_training_moves(backbone: Backbone, view: BackboneView) -> None:
    expected = features(backbone)
    scaled = view.replace_linear("text.blocks.1.attn.v_proj", Scaled)
    train(view, [*view.unfreeze(NAMES).values(), scaled.factor])  # type: ignore[list-item]
    assert equal(features(view.pretrained), expected)
    assert not equal(features(view), expected)
    assert not view.pretrained.encode_text(PLAN).requires_grad
    assert torch.equal(view.pretrained_tensor(NAMES[0]), backbone.get_parameter(NAMES[0]))
    assert not view.pretrained_tensor(NAMES[0]).requires_grad


def test_the_frozen_twin_between_forward_and_backward_leaves_the_graph_valid(view: BackboneView) -> None:
    trained = list(view.unfreeze(NAMES[:3]).values())

    def moving() -> Tensor:
        return view.encode_text(PLAN).sum() + view.encode_image(pixels()).sum()

    expected = torch.autograd.grad(moving(), trained)
    loss = moving()
    features(view.pretrained)
    assert all(torch.equal(a, b) for a, b in zip(torch.autograd.grad(loss, trained), expected, strict=True))


def test_a_replaced_linear_goes_by_its_name(view: BackboneView) -> None:
    name = "image.blocks.0.attn.q_proj"
    before = features(view)
    scaled = view.replace_linear(name, Scaled)
    assert view.replaced == {name: scaled}
    assert view.get_submodule(name) is scaled
    assert not equal(features(view), before)
    weight = view.unfreeze([f"{name}.weight"])[f"{name}.weight"]
    assert scaled.linear.weight is weight
    assert equal(features(view.pretrained), before)


def test_wrong_names_are_refused(view: BackboneView) -> None:
    near = r"did you mean 'text\.blocks\.0\.mlp\.proj\.bias'"
    for wrong in (
        lambda name: view.unfreeze([name]),
        lambda name: view.parametrize(name, Halved()),
        lambda name: view.replace_tensors({name: torch.zeros(1)}),
        lambda name: view.pretrained_tensor(name),
    ):
        with pytest.raises(UnknownName, match=near):
            wrong("text.blocks.0.mlp.proj.bais")
    with pytest.raises(UnknownName, match=r"did you mean 'image\.blocks\.1\.attn\.q_proj'"):
        view.replace_linear("image.blocks.1.attn.qproj", Scaled)
    with pytest.raises(BackboneError, match=r"'image.ln_post' of the backbone is a LayerNorm, not a Linear"):
        view.replace_linear("image.ln_post", Scaled)
    view.replace_linear("image.blocks.1.attn.q_proj", Scaled)
    with pytest.raises(
        BackboneError, match=r"'image\.blocks\.1\.attn\.q_proj' of the backbone has been replaced already"
    ):
        view.replace_linear("image.blocks.1.attn.q_proj", Scaled)
    with pytest.raises(BackboneError, match=r"a value for 'image.proj' of the backbone has shape \(1,\) instead of"):
        view.replace_tensors({"image.proj": torch.zeros(1)})
    assert not any(p.requires_grad for name, p in view.named_parameters() if "factor" not in name)


def test_nothing_is_unfrozen_where_one_name_is_wrong(view: BackboneView) -> None:
    with pytest.raises(UnknownName):
        view.unfreeze(["image.proj", "image.nothing"])
    assert not any(parameter.requires_grad for parameter in view.parameters())


def test_a_bare_tensor_is_seen_through_a_module(backbone: Backbone, view: BackboneView) -> None:
    image, _ = features(backbone)
    halved = Halved()
    view.parametrize("image.proj", halved)
    torch.testing.assert_close(features(view)[0], image / 2)
    assert view.replaced == {"image.proj": halved}
    assert equal(features(view.pretrained), features(backbone))
    torch.testing.assert_close(view.changed_tensors()["image.proj"], backbone.get_parameter("image.proj") / 2)
    with pytest.raises(BackboneError, match=r"'image\.proj' of the backbone has been parametrized already"):
        view.parametrize("image.proj", Halved())
    view.replace_tensors({"image.proj": 4 * backbone.get_parameter("image.proj")})
    torch.testing.assert_close(features(view)[0], 2 * image, msg="the module sees the value that was put there")


def test_replaced_tensors_are_frozen_copies(backbone: Backbone, view: BackboneView) -> None:
    name = "image.blocks.0.mlp.fc"
    value = backbone.get_parameter(f"{name}.bias") + 1
    view.replace_linear(name, Doubled)
    view.replace_tensors({f"{name}.bias": value})
    now = view.get_parameter(f"{name}.linear.bias")
    assert torch.equal(now, value)
    assert now.data_ptr() != value.data_ptr()
    assert not now.requires_grad
    changed = view.changed_tensors()
    assert set(changed) == {f"{name}.weight", f"{name}.bias"}
    torch.testing.assert_close(changed[f"{name}.bias"], 2 * value)
    trained = view.unfreeze([f"{name}.bias"])[f"{name}.bias"]
    assert torch.equal(trained, value), "unfrozen, it goes on from the value that was put there"


def test_what_can_be_held_by_the_backbones_tensors(view: BackboneView) -> None:
    doubled = view.replace_linear("image.blocks.0.mlp.fc", Doubled)
    scaled = view.replace_linear("image.blocks.1.mlp.fc", Scaled)
    bias = view.unfreeze(["text.blocks.0.mlp.proj.bias"]).values()
    assert view.can_hold([*bias, *doubled.parameters()])
    assert not view.can_hold([scaled.factor])  # type: ignore[list-item]
    assert not view.can_hold([nn.Parameter(torch.zeros(1))])
    assert set(view.changed_tensors()) == {
        "text.blocks.0.mlp.proj.bias", "image.blocks.0.mlp.fc.weight", "image.blocks.0.mlp.fc.bias",
    }  # fmt: skip


def test_only_what_is_replaced_goes_into_train_mode(any_backbone: Backbone) -> None:
    view = any_backbone.view()
    inside = set(view.replace_linear("text.blocks.0.mlp.fc", lambda linear: Scaled(linear, 0.5)).modules())
    owner = nn.ModuleDict({"backbone": view})
    owner.train()
    assert all(module.training for module in inside)
    assert not any(module.training for module in view.modules() if module not in inside)
    assert not any(module.training for module in any_backbone.modules())
    owner.eval()
    assert not any(module.training for module in view.modules())


def test_the_hash_ignores_the_order_of_modules_and_sees_one_bit(backbone: Backbone) -> None:
    reordered = copy.deepcopy(backbone)
    text = reordered._modules.pop("text")
    image = reordered._modules.pop("image")
    reordered._modules |= {"text": text, "image": image}
    assert reordered.compute_hash() == backbone.hash
    with torch.no_grad():
        bias = reordered.image.blocks[1].mlp.fc.bias
        bias[0] = torch.nextafter(bias[0], torch.tensor(10.0))
    assert reordered.compute_hash() != backbone.hash
    assert backbone.compute_hash() == backbone.hash, "a copy of one's own backbone is its own"
