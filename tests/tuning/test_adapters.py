"""Bottleneck adapters against their formula written out, their counts, and the identity at the start."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from clipbench.errors import ConfigError
from clipbench.tuning.adapters import AdaptedLinear, adapter_count, hidden_width


def adapted(n: int, width: int = 12, reduction: int = 4, dtype: torch.dtype = torch.float64) -> AdaptedLinear:
    """Around a frozen Linear 5 -> width, everything drawn at random."""
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(5, width, dtype=dtype).requires_grad_(False)
    module = AdaptedLinear(linear, n, reduction, generator)
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.normal_(generator=generator)
    return module


def inputs(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_the_formula(n: int) -> None:
    module, x = adapted(n), inputs()
    expected = []
    for row in x.flatten(0, -2):
        y = module.linear.weight @ row + module.linear.bias
        for adapter in module.adapters:
            hidden = adapter.down.weight @ y + adapter.down.bias
            y = y + adapter.up.weight @ (hidden * (hidden > 0)) + adapter.up.bias
        expected.append(y)
    torch.testing.assert_close(module(x).flatten(0, -2), torch.stack(expected), rtol=0, atol=1e-10)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_untrained_it_is_the_linear_bit_for_bit(n: int) -> None:
    linear = nn.Linear(5, 12).requires_grad_(False)
    module = AdaptedLinear(linear, n, 4, torch.Generator().manual_seed(0))
    x = inputs(torch.float32)
    assert torch.equal(module(x), linear(x))
    for adapter in module.adapters:
        assert bool((adapter.down.weight != 0).all())
        assert not any(bool(tensor.any()) for tensor in (adapter.down.bias, adapter.up.weight, adapter.up.bias))


def test_the_linear_stays_frozen_and_every_adapter_learns() -> None:
    module = adapted(2)
    module(inputs()).square().sum().backward()
    assert module.linear.weight.grad is None
    assert all(bool(tensor.grad.any()) for tensor in module.adapters.parameters())


def test_the_start_of_down_is_normal_with_standard_deviation_one_fiftieth() -> None:
    module = AdaptedLinear(nn.Linear(5, 400), 2, 2, torch.Generator().manual_seed(0))
    first, second = (adapter.down.weight.detach() for adapter in module.adapters)
    assert float(first.std()) == pytest.approx(0.02, rel=0.02)
    assert float(first.mean()) == pytest.approx(0, abs=5 * 0.02 / 400)
    assert not torch.equal(first, second)


def test_half_of_what_one_adapter_adds() -> None:
    module, x = adapted(1), inputs()
    added = module(x) - module.linear(x)
    module.interpolate(0.5)
    torch.testing.assert_close(module(x) - module.linear(x), 0.5 * added)
    module.interpolate(0.0)
    assert torch.equal(module(x), module.linear(x))


@pytest.mark.parametrize("n", [2, 3])
def test_nothing_of_what_several_adapters_add_and_all_of_it(n: int) -> None:
    module, x = adapted(n), inputs()
    before = module(x)
    module.interpolate(1.0)
    assert torch.equal(module(x), before)
    module.interpolate(0.0)
    assert torch.equal(module(x), module.linear(x))


# Size of the official module (d = 256, r = 4), and the table for ViT-B/16: 12 blocks of 768 and of 512
@pytest.mark.parametrize(("reduction", "one"), [(4, 5_131_008), (8, 2_573_184), (16, 1_294_272), (64, 335_088)])
def test_counts_on_vit_b_16(reduction: int, one: int) -> None:
    for n in (1, 2, 3):
        assert 12 * (adapter_count(768, n, reduction) + adapter_count(512, n, reduction)) == n * one


def test_counts_of_the_modules() -> None:
    assert adapter_count(256, 1, 4) == 33_088
    for n, reduction in ((1, 4), (3, 5), (2, 99)):
        module = adapted(n, reduction=reduction)
        assert sum(tensor.numel() for tensor in module.adapters.parameters()) == adapter_count(12, n, reduction)


def test_a_bottleneck_is_never_narrower_than_one() -> None:
    assert hidden_width(768, 16) == 48
    assert hidden_width(10, 16) == 1
    assert hidden_width(10, 3) == 3


@pytest.mark.parametrize(("n", "reduction"), [(0, 4), (2, 0)])
def test_what_cannot_be_is_refused(n: int, reduction: int) -> None:
    with pytest.raises(ConfigError, match="1 or more"):
        AdaptedLinear(nn.Linear(4, 4), n, reduction)
