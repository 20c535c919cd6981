"""The average over epochs: the published sum in float64, whatever the spread, and its state."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from clipbench.errors import ConfigError, MethodError
from clipbench.tuning.averaging import GaussianAverage


def tensors(epochs: int, seed: int = 0) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [{"a": torch.randn(2, 3, generator=generator, dtype=torch.float64)} for _ in range(epochs)]


def averaged(mean: float, std: float, values: list[dict[str, Tensor]]) -> Tensor:
    average, parameter = GaussianAverage(mean, std), nn.Parameter(torch.zeros(2, 3, dtype=torch.float64))
    for epoch, value in enumerate(values, start=1):
        average.add(epoch, value)
    average.put({"a": parameter})
    return parameter.detach()


@pytest.mark.parametrize(("mean", "std", "epochs"), [(15, 1, 20), (6, 10, 20), (30, 30, 50), (45, 5, 50), (3, 1, 2)])
def test_it_is_the_published_sum(mean: float, std: float, epochs: int) -> None:
    values = tensors(epochs)
    density = [math.exp(-0.5 * ((e - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi)) for e in range(1, epochs + 1)]
    expected = sum(w / sum(density) * value["a"] for w, value in zip(density, values, strict=True))
    torch.testing.assert_close(averaged(mean, std, values), expected, rtol=0, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.floats(-500, 500), st.floats(1e-3, 1e4), st.integers(1, 12), st.integers(0, 100))
def test_it_stays_among_the_values_and_keeps_what_is_constant(mean: float, std: float, epochs: int, seed: int) -> None:
    values = tensors(epochs, seed)
    found, stack = averaged(mean, std, values), torch.stack([value["a"] for value in values])
    assert (found <= stack.amax(dim=0) + 1e-9).all()
    assert (found >= stack.amin(dim=0) - 1e-9).all()
    constant = [values[0]] * epochs
    torch.testing.assert_close(averaged(mean, std, constant), values[0]["a"], rtol=0, atol=1e-9)


def test_a_spread_without_end_gives_the_mean_and_one_without_width_the_nearest_epoch() -> None:
    values = tensors(4)
    stack = torch.stack([value["a"] for value in values])
    torch.testing.assert_close(averaged(0, 1e9, values), stack.mean(dim=0), rtol=0, atol=1e-12)
    torch.testing.assert_close(averaged(2.1, 1e-3, values), stack[1], rtol=0, atol=1e-12)


def test_it_goes_on_from_its_state_bit_for_bit() -> None:
    whole, first, second = (GaussianAverage(3, 2) for _ in range(3))
    values = tensors(5)
    for epoch, value in enumerate(values, start=1):
        whole.add(epoch, value)
        (first if epoch < 3 else second).add(epoch, value)
        if epoch == 2:
            second.load_state_dict(first.state_dict())
    assert torch.equal(whole.values["a"], second.values["a"])
    assert whole.log_total == second.log_total


def test_it_is_put_in_place_once_and_forgotten() -> None:
    average, parameter = GaussianAverage(1, 1), nn.Parameter(torch.ones(2))
    average.put({"a": parameter})
    assert torch.equal(parameter, torch.ones(2)), "without an epoch nothing changes"
    held = torch.zeros(2)
    average.add(1, {"a": held})
    held.fill_(7)
    average.put({"a": parameter})
    assert torch.equal(parameter, torch.zeros(2)), "it keeps copies"
    with torch.no_grad():
        parameter.fill_(5)
    average.put({"a": parameter})
    assert torch.equal(parameter, torch.full((2,), 5.0))


def test_what_is_none_is_refused() -> None:
    for std in (0, -1, math.nan):
        with pytest.raises(ConfigError, match="a standard deviation above 0"):
            GaussianAverage(15, std)
    with pytest.raises(MethodError, match="no average over epochs"):
        GaussianAverage(15, 1).load_state_dict({})
