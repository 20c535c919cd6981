"""Low-rank factors against the dense formula in float64, and what they must never do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from clipbench.errors import ConfigError
from clipbench.tuning.low_rank import LowRankLinear, gamma_of, keep_mask
from clipbench.tuning.noise import Noise

D_IN, D_OUT, RANK, P = 11, 7, 3, 0.25


def frozen(d_in: int = D_IN, d_out: int = D_OUT, dtype: torch.dtype = torch.float64, bias: bool = True) -> nn.Linear:
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(d_in, d_out, bias, dtype=dtype).requires_grad_(False)
    for tensor in linear.parameters():
        tensor.normal_(generator=generator)
    return linear


def around(
    linear: nn.Linear, dropout: float = 0.0, gamma: float = 0.6, rank: int = RANK, seed: int = 1
) -> LowRankLinear:
    noise = Noise(seed, "masks")
    module = LowRankLinear(linear, rank, gamma, dropout, torch.Generator().manual_seed(seed), noise)
    with torch.no_grad():
        module.B.normal_(generator=torch.Generator().manual_seed(seed + 1))
    return module.train()


def inputs(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5)).to(dtype)


def dense(module: LowRankLinear, x: Tensor, a: Tensor, b: Tensor, kept: Tensor | None) -> Tensor:
    """The formula with the dense product, by autograd."""
    y = x @ module.linear.weight.T + module.linear.bias
    dropped = x if kept is None else x * kept / (1 - module.dropout)
    return y + module.gamma * dropped @ (b @ a).T


def test_the_delta_of_the_official_code() -> None:
    module = LowRankLinear(frozen(2, 2), 2, gamma_of(2, 1, "rank_stabilised"))
    with torch.no_grad():
        module.A.copy_(torch.tensor([[1, 2], [0, 1]]))
        module.B.copy_(torch.tensor([[1, 0], [2, 1]]))
    expected = torch.tensor([[0.70711, 1.41421], [1.41421, 3.53553]], dtype=torch.float64)
    torch.testing.assert_close(module.merged().weight - module.linear.weight, expected, atol=1e-5, rtol=0)
    delta = (module(torch.eye(2).double()) - module.linear(torch.eye(2).double())).T
    torch.testing.assert_close(delta, expected, atol=1e-5, rtol=0)


def test_gamma() -> None:
    assert gamma_of(8, 8, "plain") == 1
    assert gamma_of(2, 1, "plain") == 0.5
    assert gamma_of(2, 1, "rank_stabilised") == pytest.approx(0.70710678)


@pytest.mark.parametrize("dropout", [0.0, P, 0.3])
@pytest.mark.parametrize("shape", [(D_IN,), (5, D_IN), (2, 5, D_IN)])
def test_outputs_and_gradients_are_those_of_the_dense_formula(dropout: float, shape: tuple[int, ...]) -> None:
    module = around(frozen(), dropout)
    x = inputs(*shape).requires_grad_()
    weights = inputs(*shape[:-1], D_OUT).cos()
    y = module(x)
    found = torch.autograd.grad((y * weights).sum(), [x, module.A, module.B])
    kept = keep_mask(x, dropout, Noise(1, "masks").generator("cpu")) if dropout else None
    a, b = module.A.detach().requires_grad_(), module.B.detach().requires_grad_()
    expected = dense(module, x, a, b, kept)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    for mine, theirs in zip(found, torch.autograd.grad((expected * weights).sum(), [x, a, b]), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_gradcheck_of_the_hand_written_backward() -> None:
    module = around(frozen(), P)

    def through(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        module.noise.begin_step(0)  # type: ignore[union-attr]
        return torch.func.functional_call(module, {"A": a, "B": b}, (x,))

    tensors = (inputs(4, D_IN).requires_grad_(), module.A, module.B)
    assert torch.autograd.gradcheck(through, tensors)


@pytest.mark.parametrize("frozen_name", ["A", "B"])
def test_a_factor_that_is_frozen_gets_no_gradient_and_the_other_keeps_its_own(frozen_name: str) -> None:
    whole, part = around(frozen()), around(frozen())
    getattr(part, frozen_name).requires_grad_(False)
    for module in (whole, part):
        module(inputs(4, D_IN)).square().sum().backward()
    other = "B" if frozen_name == "A" else "A"
    assert getattr(part, frozen_name).grad is None
    assert torch.equal(getattr(part, other).grad, getattr(whole, other).grad)
    assert part.linear.weight.grad is None


@pytest.mark.parametrize("dropout", [0.0, P])
@pytest.mark.parametrize("transposed", [False, True])
def test_untrained_it_is_the_linear_bit_for_bit(dropout: float, transposed: bool) -> None:
    linear = frozen(64, 48, torch.float32)
    module = LowRankLinear(linear, 4, 2.0, dropout, torch.Generator().manual_seed(0), Noise(1, "masks")).train()
    assert bool((module.A != 0).all())
    x = inputs(3, 64, 9, dtype=torch.float32).mT if transposed else inputs(3, 9, 64, dtype=torch.float32)
    assert torch.equal(module(x), linear(x))


def test_the_start_of_a_is_uniform_within_one_over_the_square_root_of_the_width() -> None:
    a = LowRankLinear(frozen(400, 50), 40, 1.0, generator=torch.Generator().manual_seed(0)).A.detach()
    assert float(a.abs().max()) == pytest.approx(1 / 20, rel=1e-3)
    assert float(a.abs().max()) <= 1 / 20
    assert float(a.std()) == pytest.approx(1 / 20 / 3**0.5, rel=0.02)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 3), st.booleans(), st.floats(0.01, 10), st.integers(0, 9))
def test_merged_equals_unmerged(d_in: int, d_out: int, rank: int, bias: bool, gamma: float, seed: int) -> None:
    for dtype in (torch.float64, torch.float32):
        linear = frozen(d_in, d_out, dtype, bias)
        before = {name: tensor.clone() for name, tensor in linear.named_parameters()}
        module = around(linear, P, gamma, min(rank, d_in, d_out), seed).eval()
        x = inputs(6, d_in, dtype=dtype)
        merged = module.merged().requires_grad_(False)
        assert type(merged) is nn.Linear
        assert (merged.bias is not None) == bias
        y = module(x).detach()
        bound = 1e-10 if dtype == torch.float64 else 5e-5
        assert float((merged(x) - y).abs().max()) <= bound * max(1.0, float(y.abs().max()))
        assert all(torch.equal(before[name], tensor) for name, tensor in linear.named_parameters())


def test_masks_are_a_function_of_seed_and_step_and_independent_between_modules() -> None:
    noise = Noise(1, "masks")
    first, second = (LowRankLinear(frozen(), RANK, 1.0, P, torch.Generator().manual_seed(0), noise) for _ in range(2))
    with torch.no_grad():
        for module in (first, second):
            module.train().B.fill_(1)
    x = inputs(50, D_IN)

    def step(number: int) -> tuple[Tensor, Tensor]:
        noise.begin_step(number)
        return first(x).detach(), second(x).detach()

    torch.manual_seed(0)
    (one, other), (next_one, _) = step(0), step(1)
    torch.manual_seed(1)
    again, _ = step(0)
    assert torch.equal(again, one)
    assert not torch.equal(one, next_one)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("dropout", [0.25, 0.1, 0.5, 0.7])
def test_masks_drop_the_share_that_they_should_independently(dropout: float) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (keep_mask(torch.empty(999, 301), dropout, generator).double() for _ in range(2))
    entries = first.numel()
    error = 5 * (dropout * (1 - dropout) / entries) ** 0.5
    assert float(first.mean()) == pytest.approx(1 - dropout, abs=error)
    assert float((first * second).mean()) == pytest.approx((1 - dropout) ** 2, abs=error)
    assert float((first[:, 1:] * first[:, :-1]).mean()) == pytest.approx((1 - dropout) ** 2, abs=error)


def test_dropout_is_on_the_branch_alone_and_in_training_alone() -> None:
    module = around(frozen(), 0.5)
    x = inputs(2000, D_IN)
    plain = around(frozen())
    assert torch.equal(module.eval()(x), plain.eval()(x))
    module.train()
    with torch.no_grad():
        delta, expected = module(x) - module.linear(x), plain(x) - plain.linear(x)
    assert not torch.allclose(delta, expected)
    assert float((delta - expected).mean(0).abs().max()) < 0.3 * float(expected.std())
    with torch.no_grad():
        module.B.zero_()
    assert torch.equal(module(x), module.linear(x))


def test_it_says_whether_it_is_random() -> None:
    assert around(frozen(), P).stochastic
    assert not around(frozen(), 0.0).stochastic


class Shapes(TorchDispatchMode):
    """Notes the sizes of all tensors that operators make, except views of a given storage."""

    def __init__(self, known: Tensor) -> None:
        super().__init__()
        self.known = known.untyped_storage().data_ptr()
        self.made: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() != self.known:
                self.made.add(tuple(tensor.shape))
        return out


@pytest.mark.parametrize("dropout", [0.0, P])
def test_no_matrix_of_the_weights_shape_is_formed_in_training(dropout: float) -> None:
    d_in, d_out = 24, 20
    module = around(frozen(d_in, d_out, torch.float32), dropout)
    x = inputs(2, 5, d_in, dtype=torch.float32).requires_grad_()
    with Shapes(module.linear.weight) as seen:
        module(x).square().sum().backward()
    assert (d_out, RANK) in seen.made
    assert not {(d_out, d_in), (d_in, d_out)} & seen.made
    with Shapes(module.linear.weight) as control:
        dense(module, x, module.A, module.B, None).sum().backward()
    assert (d_out, d_in) in control.made


def test_interpolation_scales_the_change() -> None:
    module = around(frozen())
    x = inputs(4, D_IN)
    change = module.eval()(x) - module.linear(x)
    module.interpolate(0.25)
    torch.testing.assert_close(module(x) - module.linear(x), 0.25 * change)
    module.interpolate(0.0)
    assert torch.equal(module(x), module.linear(x))


@pytest.mark.parametrize("dropout", [0.0, P])
def test_under_autocast_outputs_are_bfloat16_and_gradients_float32(dropout: float) -> None:
    module = around(frozen(64, 48, torch.float32), dropout, rank=4)
    x = inputs(32, 64, dtype=torch.float32).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = module(x)
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    found = [tensor.grad for tensor in (x, module.A, module.B)]
    assert all(gradient is not None and gradient.dtype == torch.float32 for gradient in found)
    x.grad = module.A.grad = module.B.grad = None
    module.noise.begin_step(0)  # type: ignore[union-attr]
    module(x).square().sum().backward()
    for gradient, tensor in zip(found, (x, module.A, module.B), strict=True):
        assert float((gradient - tensor.grad).norm() / tensor.grad.norm()) < 0.02  # type: ignore[operator]


def test_what_cannot_be_is_refused() -> None:
    for rank in (0, D_OUT + 1):
        with pytest.raises(ConfigError, match=f"between 1 and {D_OUT}"):
            LowRankLinear(frozen(), rank, 1.0)
    with pytest.raises(ConfigError, match="below 1, it is"):
        LowRankLinear(frozen(), 1, 1.0, dropout=1.0)
    with pytest.raises(ConfigError, match="noise"):
        LowRankLinear(frozen(), 1, 1.0, dropout=0.5)
