"""Freezing: bit-identical where it is exact, the published drift where it is a mask."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from clipbench.randomness import torch_generator
from clipbench.tuning.fisher_groups import Piece, sliced_groups
from clipbench.tuning.freezing import ExactFreezing, Freezing, MaskedFreezing

OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], Optimizer]] = {
    "sgd": lambda tensors: SGD(tensors, lr=0.1, momentum=0.9, weight_decay=0.1),
    "adam": lambda tensors: Adam(tensors, lr=0.1, weight_decay=0.1),
    "adamw": lambda tensors: AdamW(tensors, lr=0.1, weight_decay=0.1),
}


def tensors() -> dict[str, nn.Parameter]:
    values = {"a": (8, 5), "b": (8,), "c": (4, 4)}
    return {
        name: nn.Parameter(torch.randn(shape, generator=torch_generator(1, name))) for name, shape in values.items()
    }


def pieces(trained: dict[str, nn.Parameter], *names: str) -> list[Piece]:
    groups = {group.name: group for group in sliced_groups(trained)}
    return [piece for name in names for piece in groups[name].pieces]


def step(trained: dict[str, nn.Parameter], optimizer: Optimizer, freezing: Freezing, at: int, now: list[Piece]) -> None:
    optimizer.zero_grad()
    loss = sum(((tensor - 3) ** 2).sum() * (1 + at) for tensor in trained.values() if tensor.requires_grad)
    loss.backward()
    freezing.before_step()
    if now:
        freezing.freeze(now)
    if isinstance(freezing, MaskedFreezing):
        freezing.decay()
    optimizer.step()
    freezing.after_step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_exact_freezing_leaves_every_bit_whatever_the_optimizer(name: str) -> None:
    """Whole tensors, slices, and slices that complete a tensor, with momentum and weight decay of any kind."""
    trained = tensors()
    optimizer = OPTIMIZERS[name](list(trained.values()))
    freezing = ExactFreezing(trained, [optimizer])
    plan = {
        2: pieces(trained, "c[0:1]", "c[1:2]", "c[2:3]", "c[3:4]", "a[2:4]"),
        4: pieces(trained, "a[0:2]", "b[6:8]"),
        6: pieces(trained, "a[4:6]", "a[6:8]"),
    }
    kept: list[tuple[Piece, Tensor]] = []
    for at in range(10):
        now = plan.get(at, [])
        kept += [(piece, piece.of(trained[piece.tensor].detach()).clone()) for piece in now]
        active = {name: tensor.detach().clone() for name, tensor in trained.items()}
        step(trained, optimizer, freezing, at, now)
        for piece, value in kept:
            assert torch.equal(piece.of(trained[piece.tensor]), value), (at, piece)
        moved = trained["b"][:6] != active["b"][:6]
        assert moved.all()
    assert [name for name, tensor in trained.items() if not tensor.requires_grad] == ["a", "c"]
    assert trained["a"].grad is None
    assert set(optimizer.state) == {trained["b"]}
    assert freezing.active("b").tolist() == [True] * 6 + [False] * 2
    assert freezing.is_whole("a")


def drift_after(freeze_at: int, whole: bool = True, steps_after: int = 600) -> float:
    """How far AdamW carries a frozen tensor, in learning rates; freeze in step `freeze_at`, counted from 1."""
    lr = 1e-3
    tensor = nn.Parameter(torch.zeros(4, dtype=torch.float64))
    trained = {"t": tensor}
    optimizer = AdamW([tensor], lr=lr, weight_decay=0.0)
    freezing = MaskedFreezing(trained, [optimizer])
    groups = sliced_groups(trained)
    before = 0.0
    for at in range(1, freeze_at + steps_after):
        tensor.grad = torch.ones_like(tensor)
        freezing.before_step()
        if at == freeze_at:
            before = tensor[0].item()
            freezing.freeze([piece for group in groups[: None if whole else 2] for piece in group.pieces])
        optimizer.step()
    return abs(tensor[0].item() - before) / lr


@pytest.mark.parametrize(("freeze_at", "expected"), [(1, 6.0), (60, 8.2), (300, 16.4), (1000, 25.3)])
def test_a_mask_lets_whole_tensors_drift_as_published(freeze_at: int, expected: float) -> None:
    """Section 3.3, item 4."""
    found = drift_after(freeze_at)
    assert found == pytest.approx(expected, abs=0.05)
    if freeze_at >= 60:
        assert found == pytest.approx(math.sqrt(1000 * (1 - 0.999**freeze_at)), rel=0.08)


def test_a_mask_holds_a_tensor_frozen_in_part() -> None:
    assert drift_after(60, whole=False) == 0


def test_a_mask_decays_active_entries_alone() -> None:
    trained = tensors()
    optimizer = AdamW(list(trained.values()), lr=0.1, weight_decay=0.5)
    freezing = MaskedFreezing(trained, [optimizer])
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0]
    for tensor in trained.values():
        tensor.grad = torch.zeros_like(tensor)
    before = {name: tensor.detach().clone() for name, tensor in trained.items()}
    freezing.before_step()
    freezing.freeze(pieces(trained, "a[0:2]", "c[0:1]", "c[1:2]", "c[2:3]", "c[3:4]"))
    freezing.decay()
    optimizer.step()
    factor = 1 - 0.1 * 0.5
    assert torch.equal(trained["a"][:2], before["a"][:2])
    assert torch.equal(trained["c"], before["c"])
    torch.testing.assert_close(trained["a"][2:], before["a"][2:] * factor)
    torch.testing.assert_close(trained["b"], before["b"] * factor)


def published(
    start: dict[str, Tensor], gradients: list[dict[str, Tensor]], plan: dict[int, dict[str, slice]], rates: list[float]
) -> dict[str, Tensor]:
    """The published trainer's steps, plainly: masks of tensors with a dimension, own decay of what they leave, AdamW.

    Gradients are masked as they are computed; at a freeze the state of what newly is frozen is set to 0, and the
    gradient is masked once more unless nothing of the tensor is left.
    """
    values = {name: tensor.clone() for name, tensor in start.items()}
    masks = {name: torch.ones_like(tensor, dtype=torch.bool) for name, tensor in values.items() if tensor.ndim}
    first, second = ({name: torch.zeros_like(tensor) for name, tensor in values.items()} for _ in range(2))
    for at, (step, rate) in enumerate(zip(gradients, rates, strict=True)):
        now = {name: gradient * masks.get(name, 1) for name, gradient in step.items()}
        for name, rows in plan.get(at, {}).items():
            frozen = torch.zeros_like(masks[name])
            frozen[rows] = True
            for state in (first, second):
                state[name][frozen] = 0
            masks[name] &= ~frozen
            if masks[name].any():
                now[name] = now[name] * masks[name]
        for name, value in values.items():
            if name in masks:
                value[masks[name]] *= 1 - rate * 0.5
            first[name] = 0.9 * first[name] + 0.1 * now[name]
            second[name] = 0.999 * second[name] + 0.001 * now[name] ** 2
            width = (second[name] / (1 - 0.999 ** (at + 1))).sqrt() + 1e-8
            value -= rate * first[name] / (1 - 0.9 ** (at + 1)) / width
    return values


@pytest.mark.parametrize("apart", [False, True], ids=["one group of parameters", "several"])
def test_a_mask_trains_scalars_vectors_and_matrices_as_published(apart: bool) -> None:
    """In float64, with decay and a rate that changes: freezes parts, then a whole tensor, and a scalar never."""
    shapes: dict[str, tuple[int, ...]] = {"scalar": (), "vector": (8,), "matrix": (8, 5), "whole": (4,)}
    random = torch_generator(1, "shapes")
    start = {name: torch.randn(shape, generator=random, dtype=torch.float64) for name, shape in shapes.items()}
    gradients = [
        {name: torch.randn(shape, generator=random, dtype=torch.float64) for name, shape in shapes.items()}
        for _ in range(9)
    ]
    rates = [0.1 / (1 + at) for at in range(9)]
    plan = {
        0: {"matrix": slice(0, 2)},
        3: {"vector": slice(2, 4), "whole": slice(0, 4)},
        5: {"matrix": slice(2, 6), "vector": slice(0, 2)},
    }
    trained = {name: nn.Parameter(tensor.clone()) for name, tensor in start.items()}
    parts = [{"params": [tensor]} for tensor in trained.values()] if apart else list(trained.values())
    optimizer = AdamW(parts, weight_decay=0.5)
    freezing = MaskedFreezing(trained, [optimizer])
    for at, step in enumerate(gradients):
        for group in optimizer.param_groups:
            group["lr"] = rates[at]
        for name, gradient in step.items():
            trained[name].grad = gradient.clone()
        freezing.before_step()
        rows = plan.get(at, {})
        freezing.freeze([p for name in rows for p in rows_of(trained, name, rows[name])])
        freezing.decay()
        optimizer.step()
        freezing.after_step()
    for name, value in published(start, gradients, plan, rates).items():
        torch.testing.assert_close(trained[name].detach(), value, rtol=0, atol=5e-13, msg=lambda m, n=name: f"{n}: {m}")


def rows_of(trained: dict[str, nn.Parameter], name: str, rows: slice) -> list[Piece]:
    """The slices of a tensor, in four, that lie in these rows."""
    found = [piece for group in sliced_groups({name: trained[name]}) for piece in group.pieces]
    return [piece for piece in found if rows.start <= piece.start and piece.stop <= rows.stop]


def test_a_mask_saves_nothing() -> None:
    """Section 3.3, item 9: gradients are still computed, and set to 0."""
    trained = tensors()
    optimizer = OPTIMIZERS["adamw"](list(trained.values()))
    freezing = MaskedFreezing(trained, [optimizer])
    step(trained, optimizer, freezing, 0, pieces(trained, *(f"c[{i}:{i + 1}]" for i in range(4))))
    step(trained, optimizer, freezing, 1, [])
    assert trained["c"].requires_grad
    assert trained["c"].grad is not None
    assert not trained["c"].grad.any()
