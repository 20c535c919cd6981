"""What was learned: read, put back, interpolated towards where it began, and written into the backbone's tensors."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from clipbench.backbone.clip import Backbone
from clipbench.backbone.view import BackboneView
from clipbench.errors import BackboneError, MethodError
from clipbench.tuning.adapters import AdaptedLinear
from clipbench.tuning.gates import TopK
from clipbench.tuning.learned_weights import LearnedWeights, check_declared, refuse_other_shapes, restrict_state_dict
from clipbench.tuning.low_rank import LowRankLinear
from clipbench.tuning.masks import Mask, MaskedLinear

BIAS, SCALE, LINEAR = "text.blocks.0.mlp.proj.bias", "image.ln_post.weight", "image.blocks.1.attn.q_proj"


def drawn(like: Tensor, seed: int = 0) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed), dtype=like.dtype)


def move(trainable: Mapping[str, nn.Parameter], by: float = 0.3) -> None:
    with torch.no_grad():
        for number, parameter in enumerate(trainable.values()):
            parameter.add_(drawn(parameter, number), alpha=by)


@pytest.fixture
def wide(backbone: Backbone) -> Backbone:
    """In float64, where formulas hold to 1e-10."""
    return backbone.double()


def test_state_and_load_are_inverse_and_names_and_shapes_must_fit(backbone: Backbone) -> None:
    first, second = backbone.view(), backbone.view()
    here, there = (LearnedWeights({}, v, v.unfreeze([BIAS, SCALE])) for v in (first, second))
    move(here.trainable)
    state = here.state()
    assert not any(tensor.requires_grad for tensor in state.values())
    there.load(state)
    assert all(torch.equal(there.trainable[name], tensor) for name, tensor in state.items())
    assert all(there.trainable[name].data_ptr() != tensor.data_ptr() for name, tensor in state.items())
    there.load({BIAS: torch.zeros(16)}, partial=True)
    assert not there.trainable[BIAS].any()
    assert torch.equal(there.trainable[SCALE], state[SCALE])
    for tensors, partial in (({BIAS: state[BIAS]}, False), ({**state, "more": state[BIAS]}, True)):
        with pytest.raises(MethodError, match="the stored tensors do not fit"):
            there.load(tensors, partial)
    with pytest.raises(
        MethodError, match=r"missing \[\('image\.ln_post\.weight', \(24,\), 'float32'\)\], not expected \[\('image"
    ):
        there.load({BIAS: state[BIAS], SCALE: state[SCALE][1:]})
    refuse_other_shapes(state, there.trainable)
    assert backbone.compute_hash() == backbone.hash


def test_what_lies_in_the_backbones_storage_is_not_trained(view: BackboneView) -> None:
    parameter = view.get_parameter(SCALE).requires_grad_(True)
    with pytest.raises(BackboneError, match=rf"'{SCALE}' is to be trained, but it is the backbone's own"):
        LearnedWeights({}, view, {SCALE: parameter})


def test_what_a_method_declares_is_checked() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.bias = nn.Parameter(torch.ones(2)), nn.Parameter(torch.zeros(3))

    module = Scale()
    both = {"scale": module.scale, "bias": module.bias}
    assert check_declared(module, both, 5) == both
    assert check_declared(module, {}, None) == {}
    for built, count, message in (
        (list(both), 5, r"Scale\.build\(\) returns list: it has to return parameters by name"),
        ({"scale": module.scale.detach()}, 2, r"'scale' .* is not a torch\.nn\.Parameter"),
        ({"scale": module.scale}, 2, r"'bias' of Scale is a parameter that build\(\) does not return"),
        (both, 7, r"num_trainable\(\) says 7, but what build\(\) returns are 5 numbers"),
    ):
        with pytest.raises(MethodError, match=message):
            check_declared(module, built, count)
    module.bias.requires_grad_(False)
    assert check_declared(module, {"scale": module.scale}, 2) == {"scale": module.scale}


def test_how_many_numbers_are_still_trained(view: BackboneView) -> None:
    weights = LearnedWeights({}, view, view.unfreeze([BIAS, SCALE]))
    assert weights.num_active() == 16 + 24
    weights.trainable[SCALE].requires_grad_(False)
    assert weights.num_active() == 16
    weights.active_entries = 3
    assert weights.num_active() == 3


def test_only_what_is_trained_is_part_of_a_state_dict(view: BackboneView) -> None:
    trained = view.unfreeze([BIAS])
    owner, whole = nn.ModuleDict({"backbone": view}), nn.ModuleDict()
    restrict_state_dict(owner, trained.values)
    whole["other"], whole["m"] = nn.Linear(2, 2), owner
    assert set(whole.state_dict()) == {f"m.backbone.{BIAS}", "other.weight", "other.bias"}
    state = {name: tensor + 1 for name, tensor in whole.state_dict().items()}
    whole.load_state_dict(state)
    assert torch.equal(trained[BIAS], state[f"m.backbone.{BIAS}"])
    for wrong in ({}, {f"backbone.{SCALE}": torch.zeros(24)}, {f"backbone.{BIAS}": torch.zeros(2)}):
        with pytest.raises(MethodError, match="the stored tensors do not fit"):
            owner.load_state_dict(wrong)
    with pytest.raises(RuntimeError, match=r"Missing key.*other\.weight"):
        whole.load_state_dict({name: tensor for name, tensor in state.items() if not name.startswith("other")})
    others = {name: tensor for name, tensor in state.items() if name.startswith("other")}
    assert f"m.backbone.{BIAS}" in whole.load_state_dict(others, strict=False).missing_keys
    with pytest.raises(MethodError, match="assign=True"):
        owner.load_state_dict({f"backbone.{BIAS}": torch.zeros(24)}, assign=True)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_interpolation_of_tensors_of_the_backbone_of_the_start_and_of_others(wide: Backbone, alpha: float) -> None:
    view = wide.view()
    start = {SCALE: wide.get_parameter(SCALE) + 1, "text.proj": wide.get_parameter("text.proj") * 2}
    view.replace_tensors(start)
    context = nn.Parameter(drawn(torch.zeros(3, 16, dtype=torch.float64), 7))
    began = context.detach().clone()
    trainable = {**view.unfreeze([BIAS, SCALE]), "context": context}
    weights = LearnedWeights(start, view, trainable)
    assert set(weights.began) == {"context"}, "pretrained values are read from the backbone, not kept once more"
    assert torch.equal(weights.beginning(SCALE), start[SCALE])
    assert torch.equal(weights.beginning(BIAS), wide.get_parameter(BIAS))
    move(trainable)
    tuned = {name: parameter.detach().clone() for name, parameter in trainable.items()}
    weights.interpolate(alpha)
    between = {
        BIAS: (1 - alpha) * wide.get_parameter(BIAS) + alpha * tuned[BIAS],
        SCALE: (1 - alpha) * wide.get_parameter(SCALE) + alpha * tuned[SCALE],
        "text.proj": (1 - alpha) * wide.get_parameter("text.proj") + alpha * start["text.proj"],
    }
    for name, expected in between.items():
        torch.testing.assert_close(view.get_parameter(name).detach(), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(context.detach(), (1 - alpha) * began + alpha * tuned["context"], rtol=0, atol=1e-12)
    assert wide.compute_hash() == wide.view().compute_hash()
    assert torch.equal(wide.get_parameter("text.proj") * 2, start["text.proj"]), "the start's tensors stay as they were"


@pytest.mark.parametrize("kind", ["low rank", "adapter", "mask"])
@pytest.mark.parametrize("alpha", [0.0, 0.25])
def test_modules_that_know_the_way_back_take_it_themselves(wide: Backbone, kind: str, alpha: float) -> None:
    def around(linear: nn.Linear) -> nn.Module:
        if kind == "low rank":
            return LowRankLinear(linear, 2, 1.0, generator=torch.Generator().manual_seed(0))
        if kind == "adapter":
            return AdaptedLinear(linear, 1, 4, torch.Generator().manual_seed(0))
        return MaskedLinear(linear, Mask(drawn(linear.weight), TopK(0.5)))

    view = wide.view()
    module = view.replace_linear(LINEAR, around)
    trainable = {f"{LINEAR}.{leaf}": p for leaf, p in module.named_parameters() if p.requires_grad}
    weights = LearnedWeights({}, view, trainable)
    assert not weights.began
    move(trainable)
    x = drawn(torch.zeros(4, 24, dtype=torch.float64), 5)
    linear = nn.functional.linear(x, wide.get_parameter(f"{LINEAR}.weight"), wide.get_parameter(f"{LINEAR}.bias"))
    with torch.no_grad(), view.merged():
        tuned = view.get_submodule(LINEAR)(x)
        weights.interpolate(alpha)
    with torch.no_grad(), view.merged():
        expected = (1 - alpha) * linear + alpha * tuned
        torch.testing.assert_close(view.get_submodule(LINEAR)(x), expected, rtol=0, atol=1e-10)
    if kind == "adapter":
        with pytest.raises(MethodError, match="start: what was learned there is not in the backbone's weights alone"):
            weights.in_the_backbone()
    elif alpha:
        (stored,) = weights.in_the_backbone().items()
        assert stored[0] == f"{LINEAR}.weight"
        bias = wide.get_parameter(f"{LINEAR}.bias")
        torch.testing.assert_close(nn.functional.linear(x, stored[1], bias), expected, rtol=0, atol=1e-10)


def test_a_start_inside_a_module_that_knows_no_way_back_is_refused(view: BackboneView) -> None:
    start = {f"{LINEAR}.weight": torch.ones(24, 24)}
    view.replace_tensors(start)
    module = view.replace_linear(LINEAR, lambda linear: nn.Sequential(linear))
    weights = LearnedWeights(start, view, view.unfreeze([BIAS]))
    with pytest.raises(
        MethodError, match=rf"'{LINEAR}\.weight' of the start lies inside a Sequential: there is no way"
    ):
        weights.interpolate(0.5)
    assert view.get_submodule(LINEAR) is module


def test_what_is_in_the_backbone_is_a_copy_of_what_differs(view: BackboneView) -> None:
    trained = view.unfreeze([BIAS])
    weights = LearnedWeights({}, view, trained)
    move(trained)
    inside = weights.in_the_backbone()
    assert set(inside) == {BIAS}
    before = inside[BIAS].clone()
    move(trained)
    assert torch.equal(inside[BIAS], before)
    assert LearnedWeights().num_active() == 0
