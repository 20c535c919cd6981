"""The published hooks: reference values, formulas per kind of module, and their faults."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipbench.randomness import torch_generator
from clipbench.tuning.kronecker import KroneckerFisher


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch_generator(seed, "kronecker"))


def filled(module: nn.Module, seed: int = 1) -> nn.Module:
    """The module with seeded weights."""
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            parameter.copy_(normal(*parameter.shape, seed=seed + i))
    return module


def run(model: nn.Module, x: Tensor, scale: float = 1.0, **options: object) -> tuple[KroneckerFisher, Tensor, Tensor]:
    """One step of L = scale * mean(y^2); the hooks, y and dL/dy."""
    hooks = KroneckerFisher(model, dict(model.named_parameters()), **options)  # type: ignore[arg-type]
    hooks.begin_step(True)
    y = model(x)
    y.retain_grad()
    (scale * y.square().mean()).backward()
    hooks.end_step()
    hooks.remove()
    return hooks, y.detach(), y.grad


def test_the_reference_linear() -> None:
    linear = nn.Linear(2, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        linear.bias.copy_(torch.tensor([0.5, -0.5]))
    hooks, _, _ = run(linear, torch.tensor([[1.0, 0.0], [2.0, 1.0]]))
    h, s = hooks.factors("weight")
    torch.testing.assert_close(h, torch.tensor([2.2, 0.6, 1.0]))
    torch.testing.assert_close(s, torch.tensor([2.45, 9.85]))
    found = hooks.estimate(["weight", "bias"])
    torch.testing.assert_close(found["weight"], torch.tensor([[5.39, 1.47], [21.67, 5.91]]))
    torch.testing.assert_close(found["bias"], torch.tensor([2.45, 9.85]))


def test_rows_of_all_tokens_and_calls_are_pooled() -> None:
    linear = filled(nn.Linear(3, 5, bias=False))
    x = normal(4, 6, 3)
    whole, _, _ = run(linear, x)

    class InTwoCalls(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.linear(x[:1]), self.linear(x[1:])])

    parts, _, _ = run(InTwoCalls(), x)
    torch.testing.assert_close(parts.factors("linear.weight")[0], whole.factors("weight")[0])
    torch.testing.assert_close(parts.estimate(["linear.weight"])["linear.weight"], whole.estimate(["weight"])["weight"])


@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_is_a_linear_on_its_patches_with_another_divisor(bias: bool) -> None:
    """As published: the sum over patches over images alone without a bias, over images, patches and length with one."""
    convolution = filled(nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=bias))
    x = normal(3, 2, 7, 7)
    hooks, _, grad = run(convolution, x)
    patches = F.unfold(x, 3, padding=1, stride=2).transpose(1, 2).reshape(-1, 18).double()
    divisor = patches.numel() if bias else len(x)
    h = 0.2 + 0.8 * patches.square().sum(dim=0) / divisor
    s = 0.2 + 0.8 * grad.movedim(1, -1).reshape(-1, 4).double().square().mean(dim=0)
    found = hooks.estimate(["weight"])["weight"].double()
    torch.testing.assert_close(found, torch.outer(s, h).view(4, 2, 3, 3), rtol=1e-5, atol=0)
    if bias:
        torch.testing.assert_close(hooks.estimate(["bias"])["bias"].double(), s * (0.2 + 0.8 / 18), rtol=1e-5, atol=0)


def test_a_norm_sums_over_all_but_dimension_one() -> None:
    """Section 3.2: with (B, L, W) dimension one is the tokens, so C = W."""
    norm = filled(nn.LayerNorm(6))
    x = normal(3, 5, 6, seed=9)
    hooks, _, grad = run(norm, x)
    batch, tokens, width = x.shape
    u = x.double().sum(dim=(0, 2)) / width**2
    h = torch.stack([u.square().sum() / batch**2, torch.tensor(tokens / batch**2, dtype=torch.float64)])
    s = grad.double().sum(dim=(0, 1)).square() / batch
    h, s = 0.2 + 0.8 * h, 0.2 + 0.8 * s
    found = hooks.estimate(["weight", "bias"])
    torch.testing.assert_close(found["weight"].double(), s * h[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(found["bias"].double(), s * h[1], rtol=1e-5, atol=0)


def mlp() -> nn.Module:
    return filled(nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4)), seed=3)


def test_the_average_starts_from_ones_at_every_step_unless_it_is_mended() -> None:
    """Section 3.3, item 1: the counter is never advanced."""
    model = mlp()
    kept = {}
    for accumulate in (False, True):
        hooks = KroneckerFisher(model, dict(model.named_parameters()), accumulate=accumulate)
        for seed in (1, 2):
            hooks.begin_step(True)
            model(normal(32, 8, seed=seed)).square().mean().backward()
            hooks.end_step()
        kept[accumulate] = hooks.factors("0.weight")[0]
        hooks.remove()
    first, second = (normal(32, 8, seed=seed).square().mean(dim=0) for seed in (1, 2))
    torch.testing.assert_close(kept[False][:8], 0.2 + 0.8 * second)
    torch.testing.assert_close(kept[True][:8], 0.2 * (0.2 + 0.8 * first) + 0.8 * second)


def test_the_loss_hardly_matters() -> None:
    """Section 3.3, item 1: ten times the loss is a hundred times the Fisher information, and next to nothing here."""
    model = mlp()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.1)
    x = normal(64, 8)
    once, _, _ = run(model, x)
    tenfold, _, _ = run(model, x, scale=10.0)
    a, b = (hooks.estimate(["0.weight"])["0.weight"] for hooks in (once, tenfold))
    assert (b / a - 1).abs().max() < 0.01
    s = once.factors("0.weight")[1]
    assert s.min() >= 0.2
    assert s.max() < 0.202


def test_what_no_hook_sees_has_no_estimate() -> None:
    """Biases whose weights are not trained, packed attention, bare parameters."""
    model = nn.ModuleDict(
        {"attn": nn.ModuleDict({"q_proj": nn.Linear(4, 4), "out_proj": nn.Linear(4, 4)}), "fc": nn.Linear(4, 4)}
    )
    model.register_parameter("proj", nn.Parameter(torch.ones(4, 4)))
    model["fc"].weight.requires_grad_(False)
    trained = {name: p for name, p in model.named_parameters() if name != "fc.weight"}

    def forward(packed: bool) -> dict[str, Tensor | None]:
        hooks = KroneckerFisher(model, trained, packed_attention=packed)
        hooks.begin_step(True)
        y = model["fc"](model["attn"]["out_proj"](model["attn"]["q_proj"](normal(5, 4)))) @ model.proj
        y.square().mean().backward()
        hooks.end_step()
        hooks.remove()
        return hooks.estimate(trained)

    assert all(estimate is None for estimate in forward(packed=True).values())
    seen = {name for name, estimate in forward(packed=False).items() if estimate is not None}
    assert seen == {f"attn.{name}.{leaf}" for name in ("q_proj", "out_proj") for leaf in ("weight", "bias")}


@pytest.mark.parametrize("listening", [True, False])
def test_hooks_cost_nothing_in_steps_that_do_not_listen(listening: bool) -> None:
    model = mlp()
    hooks = KroneckerFisher(model, dict(model.named_parameters()))
    hooks.begin_step(listening)
    model(normal(4, 8)).sum().backward()
    hooks.end_step()
    assert (hooks.estimate(["0.weight"])["0.weight"] is not None) == listening
    hooks.remove()
    assert not any(module._forward_hooks for module in model.modules())


def test_averages_of_a_checkpoint_are_taken_to_where_the_modules_are() -> None:
    model = mlp()
    hooks, _, _ = run(model, normal(3, 8), accumulate=True)
    elsewhere = copy.deepcopy(model).to("meta")  # as an accelerator would be
    resumed = KroneckerFisher(elsewhere, dict(elsewhere.named_parameters()), accumulate=True)
    resumed.resume(hooks.state())
    held = [average for averages in resumed.state() for average in averages.values()]
    assert held
    assert {average.device.type for average in held} == {"meta"}
