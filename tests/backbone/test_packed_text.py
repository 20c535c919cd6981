"""The packed text tower against the plain one: features and every gradient, over random prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from clipbench.backbone import PromptPlan
from clipbench.backbone.clip import Backbone
from clipbench.backbone.packing import Layout, first_fit
from clipbench.errors import BackboneError
from clipbench.testing import plain

VOCABULARY, CONTEXT, WIDTH = 64, 20, 16
START, END = 62, 63
SEARCH = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


@st.composite
def prompts(draw: st.DrawFn) -> tuple[PromptPlan, int]:
    """A plan and the number of learned rows it names: fixed, shared, class-specific, front, middle or end context."""
    classes = draw(st.integers(1, 9))
    words = st.lists(st.integers(1, 61), min_size=1, max_size=6)
    head = draw(st.lists(st.integers(1, 61), max_size=4))
    names = [draw(words) for _ in range(classes)]
    kind = draw(st.sampled_from(["fixed", "end", "middle", "front", "class-specific", "end and head"]))
    length = draw(st.integers(1, 5))
    sequences = []
    for c, name in enumerate(names):
        first = VOCABULARY + (c * length if kind == "class-specific" else 0)
        learned = list(range(first, first + length))
        body = {
            "fixed": head + name,
            "end": learned + name,
            "middle": learned[: length // 2] + name + learned[length // 2 :],
            "front": name + learned,
            "class-specific": learned + name,
            "end and head": head + learned + name,
        }[kind]
        sequences.append([START, *body, END])
    rows = {"fixed": 0, "class-specific": classes * length}.get(kind, length)
    return PromptPlan(sequences, row_length=draw(st.sampled_from([4, 8, 32]))), rows


def results(backbone: Backbone, plan: PromptPlan, rows: int, path: Any, dtype: torch.dtype) -> dict[str, Tensor]:
    """Features, and the gradient of a fixed random functional of them to every tensor of the tower and to the rows."""
    tower = backbone.view().to(dtype)
    tensors = tower.unfreeze([f"text.{name}" for name, _ in tower.text.named_parameters()])
    generator = torch.Generator().manual_seed(rows)
    extra = torch.randn(rows, WIDTH, generator=generator).to(dtype).requires_grad_() if rows else None
    features = path(tower, plan, extra)
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    (features * weights).sum().backward()
    out = {"features": features.detach()}
    out |= {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in tensors.items()}
    return out if extra is None else out | {"extra": extra.grad}


def packed(backbone: Backbone, plan: PromptPlan, extra: Tensor | None) -> Tensor:
    return backbone.encode_text(plan, extra)


def scale_of(expected: Tensor) -> float:
    """The largest entry; 1 where the exact value is zero (gradients of key biases, which shift all scores alike)."""
    largest = float(expected.abs().max())
    return largest if largest > 1e-9 else 1.0


@pytest.fixture(params=["gelu", "quickgelu"])
def text_backbone(request: pytest.FixtureRequest, tiny: Any) -> Backbone:
    return tiny(quick_gelu=request.param == "quickgelu")


@SEARCH
@given(case=prompts())
def test_packed_equals_plain_in_float64(text_backbone: Backbone, case: tuple[PromptPlan, int]) -> None:
    plan, rows = case
    ours = results(text_backbone, plan, rows, packed, torch.float64)
    oracle = results(text_backbone, plan, rows, plain.encode_text, torch.float64)
    assert ours.keys() == oracle.keys()
    for name, expected in oracle.items():
        assert float((ours[name] - expected).abs().max()) <= 1e-10 * scale_of(expected), name


def test_packed_rounds_no_worse_than_plain_in_float32(text_backbone: Backbone) -> None:
    squares: dict[str, list[float]] = {"packed": [], "plain": []}
    cases: list[tuple[PromptPlan, int]] = []

    @settings(SEARCH, max_examples=30)
    @given(case=prompts())
    def collect(case: tuple[PromptPlan, int]) -> None:
        cases.append(case)

    collect()
    for plan, rows in cases:
        oracle = results(text_backbone, plan, rows, plain.encode_text, torch.float64)
        for kind, path in (("packed", packed), ("plain", plain.encode_text)):
            for name, value in results(text_backbone, plan, rows, path, torch.float32).items():
                if scale_of(oracle[name]) == 1.0 and "k_proj.bias" in name:
                    continue
                error = (value.double() - oracle[name]) / scale_of(oracle[name])
                assert float(error.abs().max()) <= 5e-5, (kind, name)
                squares[kind].append(float((error**2).mean()))
    rms = {kind: float(np.sqrt(np.mean(values))) for kind, values in squares.items()}
    assert rms["packed"] <= 1.5 * rms["plain"], rms


def test_the_prefix_is_computed_once_and_padding_is_small() -> None:
    classes = [[START, 1, 2, 3, 4, *range(10, 10 + n % 7 + 1), END] for n in range(100)]
    plan = PromptPlan(classes)
    assert plan.prefix == 6  # start, four words, and 10
    lengths = np.array([len(s) for s in classes])
    layout = Layout(lengths, lengths - 1, plan.prefix, plan.row_length, causal=True)
    tokens = int((lengths - plan.prefix).sum())
    assert layout.size - plan.prefix <= 1.1 * tokens + plan.row_length


def test_first_fit_loses_and_overlaps_nothing() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        lengths = rng.integers(1, 33, size=rng.integers(1, 60))
        row, start, rows = first_fit(lengths, 32)
        used = np.zeros((rows, 32), int)
        for r, s, n in zip(row, start, lengths, strict=True):
            used[r, s : s + n] += 1
        assert used.max() == 1
        assert used.sum() == lengths.sum()
        assert set(row) == set(range(rows))


def test_order_of_classes_is_kept_and_company_does_not_matter(text_backbone: Backbone) -> None:
    backbone = text_backbone.double()
    sequences = [[START, 1, *range(2, 2 + n), END] for n in (1, 9, 3, 14, 2, 7, 7)]
    together = backbone.encode_text(PromptPlan(sequences))
    alone = torch.cat([backbone.encode_text(PromptPlan([s])) for s in sequences])
    torch.testing.assert_close(together, alone, rtol=1e-11, atol=1e-12)


def test_long_lists_without_gradient_go_in_parts(text_backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = PromptPlan([[START, 1, 2 + n % 50, 3 + n % 7, END] for n in range(23)])
    whole = text_backbone.encode_text(plan)
    monkeypatch.setattr("clipbench.backbone.text.CHUNK", 5)
    with torch.no_grad():
        torch.testing.assert_close(text_backbone.encode_text(plan), whole, rtol=1e-5, atol=1e-5)
    assert len(plan.parts(5)) == 5


def test_every_trained_tensor_gets_a_gradient(text_backbone: Backbone) -> None:
    plan = PromptPlan([[START, 1, 2, 64, 65, END], [START, 1, 3, 64, 65, 4, END]])
    got = results(text_backbone, plan, 2, packed, torch.float32)
    for name, gradient in got.items():
        assert torch.isfinite(gradient).all(), name
        # a bias of the keys moves all scores of a query alike: its gradient is zero but for rounding
        assert gradient.abs().max() > (0 if "k_proj.bias" in name else 1e-4), name


def test_wrong_plans_are_refused(text_backbone: Backbone) -> None:
    with pytest.raises(BackboneError, match="at least one class"):
        PromptPlan([])
    with pytest.raises(BackboneError, match=r"class 1 .* no tokens"):
        PromptPlan([[1], []])
    with pytest.raises(BackboneError, match=r"class 1 .* 25 tokens.* takes 20"):
        text_backbone.encode_text(PromptPlan([[START, END], [1] * 25]))
    with pytest.raises(BackboneError, match="names 3 learned rows, but 2 were given"):
        text_backbone.encode_text(PromptPlan([[START, 66, END]]), torch.zeros(2, WIDTH))
    with pytest.raises(BackboneError, match="names 1 learned rows, but 0 were given"):
        text_backbone.encode_text(PromptPlan([[START, 64, END]]))


def test_a_tower_that_sees_both_ways_takes_every_position(tiny: Any) -> None:
    both_ways = {"no_causal_mask": True, "pool_type": "last", "pad_id": 7}
    backbone = tiny(text=both_ways, custom_text=True).double()
    assert "packed" not in backbone.spec.abilities["text"]
    plan = PromptPlan([[START, 1, 2, 3, END], [START, 1, 64, END]])
    extra = torch.randn(1, WIDTH, dtype=torch.float64)
    torch.testing.assert_close(
        backbone.encode_text(plan, extra), plain.encode_text(backbone, plan, extra), rtol=1e-11, atol=1e-12
    )
