"""Modules that are written as plain Linears for inference, and which of those in a view draw noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from clipbench.backbone import PromptPlan
from clipbench.backbone.state import state_of
from clipbench.backbone.view import BackboneView
from tests.backbone.in_views import PLAN, Doubled, Halved, Scaled, equal, features, train


@pytest.fixture
def view(tiny: Any) -> BackboneView:
    return tiny().view()


def test_merged_linears_stand_in_and_make_room_again(view: BackboneView) -> None:
    first, second = "image.blocks.0.mlp.fc", "image.blocks.1.mlp.fc"
    doubled = view.replace_linear(first, Doubled)
    view.replace_linear(second, Scaled)
    apart = features(view)
    with view.merged():
        assert type(view.get_submodule(first)) is nn.Linear
        assert isinstance(view.get_submodule(second), Scaled), "it cannot be merged"
        torch.testing.assert_close(features(view), apart)
        with view.merged():
            assert type(view.get_submodule(first)) is nn.Linear
        assert type(view.get_submodule(first)) is nn.Linear, "an inner context does not end the outer one"
    assert view.get_submodule(first) is doubled
    assert equal(features(view), apart)


def test_modules_are_back_after_an_error_inside_and_one_while_merging(
    view: BackboneView, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["image.blocks.0.mlp.fc", "image.blocks.1.mlp.fc"]
    modules = [view.replace_linear(name, Doubled) for name in names]
    with pytest.raises(RuntimeError, match="inside"), view.merged():
        raise RuntimeError("inside")
    assert [view.get_submodule(name) for name in names] == modules
    with torch.no_grad():
        modules[0].factor.add_(1)
        modules[1].factor.add_(1)
    monkeypatch.setattr(modules[1], "merged", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError), view.merged():
        pass
    assert [view.get_submodule(name) for name in names] == modules


def test_a_linear_is_merged_anew_only_where_its_tensors_moved(view: BackboneView) -> None:
    name = "image.blocks.0.mlp.fc"
    doubled: Any = view.replace_linear(name, Doubled)
    for _ in range(2):
        with view.merged(), torch.inference_mode():
            features(view)
    assert doubled.written == 1
    with torch.no_grad():
        doubled.factor.mul_(2)
    apart = features(view)
    with view.merged():
        torch.testing.assert_close(features(view), apart)
    assert doubled.written == 2
    view.replace_tensors({f"{name}.bias": torch.zeros_like(doubled.linear.bias)})
    apart = features(view)
    with view.merged():
        torch.testing.assert_close(features(view), apart)
    assert doubled.written == 3
    view.clear_cache()
    with view.merged():
        pass
    assert doubled.written == 4
    train(view, [doubled.factor], steps=1)  # what was merged under inference mode is not in the way


class Squared(Doubled):
    """Its plain weight is a matrix product, which mixed precision would round."""

    def merged(self) -> nn.Linear:
        plain = super().merged()
        with torch.no_grad():
            plain.weight = nn.Parameter(plain.weight @ torch.eye(plain.in_features))
        return plain


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_is_merged_is_exact_also_where_it_is_first_asked_for_under_mixed_precision(
    view: BackboneView, dtype: torch.dtype
) -> None:
    name = "text.blocks.0.mlp.fc"
    view.replace_linear(name, Squared)
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype), view.merged():
        features(view)
        kept = view.get_submodule(name).get_parameter("weight")
    assert kept.dtype == torch.float32
    view.clear_cache()
    with view.merged():
        assert torch.equal(view.get_submodule(name).get_parameter("weight"), kept)
        features(view)


def test_noise_in_the_text_tower_is_not_shared_by_classes(view: BackboneView) -> None:
    """With dropout two classes with the same prompt must differ: the prefix is not computed once for both."""
    twice = PromptPlan([[62, 1, 2, 3, 4, 5, 63]] * 2)
    assert twice.prefix == 6
    view.replace_linear("text.blocks.0.mlp.fc", lambda linear: Scaled(linear, 0.5))
    view.eval()
    assert not view.is_random("text")
    calm = view.encode_text(twice)
    assert torch.equal(calm[0], calm[1])
    view.train()
    assert view.is_random("text")
    assert not view.is_random("image")
    seen = []
    view.encode_text(twice, None, {0: lambda tokens: seen.append(tokens.layout.prefix) or tokens})
    noisy = view.encode_text(twice)
    assert seen == [0]
    assert not torch.allclose(noisy[0], noisy[1])


def test_a_module_may_say_itself_whether_it_is_random(view: BackboneView) -> None:
    quiet: Any = view.replace_linear("text.blocks.0.mlp.fc", lambda linear: Scaled(linear, 0.5))
    quiet.stochastic = False
    view.train()
    seen = []
    view.encode_text(PLAN, None, {0: lambda tokens: seen.append(tokens.layout.prefix) or tokens})
    assert seen == [2]


def test_what_stands_merged_draws_no_noise_and_what_cannot_be_merged_does(view: BackboneView) -> None:
    noisy: Any = view.replace_linear("text.blocks.0.mlp.fc", Doubled)
    noisy.stochastic = True
    shaken = Halved()
    shaken.stochastic = True  # type: ignore[assignment]
    view.train()
    with view.merged():
        assert not view.is_random("text")
    assert view.is_random("text")
    view.parametrize("text.proj", shaken)
    view.train()
    with view.merged():
        assert view.is_random("text"), "a parametrized tensor is never merged"
    adapter = view.replace_linear("image.blocks.0.mlp.fc", lambda linear: Scaled(linear, 0.5))
    view.train()
    with view.merged():
        assert view.is_random("image")
        assert view.get_submodule("image.blocks.0.mlp.fc") is adapter


def test_the_state_of_tensors_is_that_of_these_tensors_at_these_values() -> None:
    """The allocator gives the address of a tensor that is gone to the next one; here two share it at the same time."""
    values = torch.zeros(4)
    first, second = nn.Parameter(values), nn.Parameter(values)
    before = state_of([first])
    assert first.data_ptr() == second.data_ptr()
    assert state_of([first]) == before
    assert state_of([second]) != before
    with torch.no_grad():
        first.add_(1)
    assert state_of([first]) != before
    moved = state_of([first])
    first.data = first.data.clone()
    assert state_of([first]) != moved
    meta = torch.zeros(3, device="meta")
    assert state_of([meta]) == state_of([meta]) != state_of([torch.zeros(3, device="meta")])
    with torch.inference_mode():
        assert state_of([torch.zeros(2)]) != state_of([torch.zeros(2)])
