"""Modules in the places of selected Linears: which, by which names, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from clipbench.backbone.clip import Backbone
from clipbench.backbone.view import BackboneView
from clipbench.errors import ConfigError
from clipbench.tuning.linears import WrappedLinears
from clipbench.tuning.low_rank import LowRankLinear

SELECTION = ["image tower, last 2 blocks, attn.q_proj", "text tower, blocks all, mlp.fc"]
LINEARS = ["image.blocks.1.attn.q_proj", "image.blocks.2.attn.q_proj", "text.blocks.0.mlp.fc", "text.blocks.1.mlp.fc"]


def factors(name: str, linear: nn.Linear) -> LowRankLinear:
    module = LowRankLinear(linear, 2, 0.7, generator=torch.Generator().manual_seed(LINEARS.index(name)))
    with torch.no_grad():
        module.B.normal_(generator=torch.Generator().manual_seed(9))
    return module


def test_every_selected_linear_is_replaced_and_its_trained_tensors_named(view: BackboneView) -> None:
    linears = WrappedLinears(SELECTION)
    trainable = linears.replace(view, factors)
    assert list(view.replaced) == LINEARS
    assert set(trainable) == {f"{name}.{leaf}" for name in LINEARS for leaf in "AB"}
    assert all(trainable[f"{name}.A"] is view.replaced[name].A for name in LINEARS)
    assert linears.sizes == {name: (24, 24) if "image" in name else (16, 64) for name in LINEARS}
    view.refuse_shared(trainable)


def test_the_view_computes_what_the_formula_says_in_the_weights(backbone: Backbone) -> None:
    """float64: y = (W + gamma B A) x + b in every place, by a backbone of its own with these weights."""
    wide = backbone.double()
    view = wide.view()
    trainable = WrappedLinears(SELECTION).replace(view, factors)
    other = wide.view()
    other.replace_tensors({
        f"{name}.weight": wide.get_parameter(f"{name}.weight")
        + 0.7 * sum(trainable[f"{name}.B"][:, [r]] * trainable[f"{name}.A"][r] for r in range(2))
        for name in LINEARS
    })  # fmt: skip
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    expected = other.encode_image(pixels)
    torch.testing.assert_close(view.encode_image(pixels), expected, rtol=0, atol=1e-10)
    with view.merged():
        torch.testing.assert_close(view.encode_image(pixels), expected, rtol=0, atol=1e-10)
    assert not torch.allclose(expected, wide.encode_image(pixels))


def test_parameters_that_modules_share_are_named_once(view: BackboneView) -> None:
    shift = nn.Parameter(torch.zeros(1))

    class Shifted(nn.Module):
        def __init__(self, linear: nn.Linear) -> None:
            super().__init__()
            self.linear, self.shift = linear, shift

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) + self.shift

    trainable = WrappedLinears(SELECTION).replace(view, lambda name, linear: Shifted(linear))
    assert trainable == {f"{LINEARS[0]}.shift": shift}


def test_what_cannot_be_is_refused_with_its_place(view: BackboneView) -> None:
    with pytest.raises(ConfigError, match="begins with no tower"):
        WrappedLinears(["tower"])
    with pytest.raises(ConfigError, match="matches no Linear there"):
        WrappedLinears(["image tower, blocks all, attn.qproj"]).select(view)
    with pytest.raises(ConfigError, match=r"^image\.blocks\.1\.attn\.q_proj: rank must lie between 1 and 24"):
        WrappedLinears(SELECTION).replace(view, lambda name, linear: LowRankLinear(linear, 25, 1.0))
