"""Masks: exact counts, the formulas of forward and backward, one bit per weight, and the frozen weight untouched."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from clipbench.errors import ConfigError, MethodError
from clipbench.tuning import topk
from clipbench.tuning.gates import Rule, ScoreInit, Soft, Threshold, TopK, initial_scores, make_rule
from clipbench.tuning.masks import Mask, MaskedLinear, StraightThrough, pack, unpack
from clipbench.tuning.topk import ExactCut, drop_count

RULES = [TopK(0.9), TopK(0.5), Threshold(5e-3), Soft()]
NAMES = ["topk 0.9", "topk 0.5", "threshold", "soft"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stable(values: Tensor, drop: int) -> Tensor:
    """The oracle: a stable sort."""
    mask = torch.ones(values.numel(), dtype=torch.bool)
    mask[values.flatten().argsort(stable=True)[:drop]] = False
    return mask.view(values.shape)


def masked(rule: Rule, rows: int = 6, columns: int = 5, dtype: torch.dtype = torch.float64) -> MaskedLinear:
    linear = nn.Linear(columns, rows, dtype=dtype).requires_grad_(False)
    linear.weight.data.normal_(generator=generator(1))
    scores = torch.randn(rows, columns, generator=generator(2), dtype=dtype) * 0.02
    return MaskedLinear(linear, Mask(scores, rule))


# Counts


@pytest.mark.parametrize(("entries", "dropped"), [(10, 1), (1000, 100), (9, 0), (11, 1), (768 * 768, 58_982)])
def test_nine_tenths_are_exact(entries: int, dropped: int) -> None:
    assert int((1 - 0.9) * 1000) == 99, "the trap"
    assert drop_count(0.9, entries) == dropped


@given(st.integers(1, 1000), st.integers(1, 5000))
@settings(max_examples=200, deadline=None)
def test_counts_are_of_decimal_fractions(thousandths: int, entries: int) -> None:
    keep = thousandths / 1000
    assert drop_count(keep, entries) == (1000 - thousandths) * entries // 1000
    assert drop_count(keep, entries) == int((1 - Decimal(str(keep))) * entries)


@pytest.mark.parametrize("keep", [0.0, -0.1, 1.1])
def test_a_keep_ratio_that_is_none(keep: float) -> None:
    with pytest.raises(ConfigError, match="keep ratio"):
        make_rule("topk_abs", keep, 0.0)


# The cut


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=60), st.integers(1, 20))
@settings(max_examples=200, deadline=None)
def test_ties_go_by_index(values: list[int], twentieths: int) -> None:
    scores = torch.tensor(values, dtype=torch.float32)
    rule = TopK(twentieths / 20)
    for now in (scores, scores, scores.roll(1), 10 * scores):
        assert torch.equal(rule.gate(now), stable(now.abs(), drop_count(twentieths / 20, len(values))))


@pytest.mark.parametrize("with_numpy", [True, False], ids=["numpy", "torch"])
@pytest.mark.parametrize("pace", [0.0, 1e-4, 3e-2, 1.0])
@pytest.mark.parametrize("levels", [None, 400])
def test_the_followed_cut_is_that_of_a_stable_sort(
    pace: float, levels: int | None, with_numpy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores that rest, creep, walk or jump; with many ties and with few."""
    if not with_numpy:  # as on an accelerator
        monkeypatch.setattr(topk, "_seen", lambda values: None)
    random, exact = generator(), ExactCut(2000)
    scores = torch.randn(20_000, generator=random)
    for _ in range(25):
        scores += pace * (0.3 + torch.randn(len(scores), generator=random))
        values = scores.abs()
        if levels:
            values = (values * levels).round() / levels
        mask = exact.keep(values)
        assert torch.equal(mask, stable(values, 2000))
        assert exact.cut == float(values[~mask].max())
    if pace < 1e-2:
        assert exact.searches == 1, "slow scores are searched as a whole once"


def test_scores_that_begin_equal_and_part() -> None:
    random, exact = generator(), ExactCut(100)
    scores = torch.full((1000,), 0.02)
    for _ in range(10):
        assert torch.equal(exact.keep(scores), stable(scores, 100))
        scores = scores + 1e-3 * torch.randn(1000, generator=random)


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(MethodError, match="not finite"):
        TopK(0.5).gate(torch.full((4,), math.nan))


# Forward and backward


def test_reference_values_of_the_official_rule() -> None:
    weight = torch.tensor([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]])
    scores = torch.tensor([[0.3, -0.1, 0.2], [-0.5, 0.05, 0.4]])
    linear = nn.Linear(3, 2, bias=False).requires_grad_(False)
    linear.weight.data.copy_(weight)
    layer = MaskedLinear(linear, Mask(scores, TopK(0.5)))
    out = layer(torch.ones(1, 3))
    assert layer.mask.gate().int().tolist() == [[1, 0, 0], [1, 0, 1]]
    assert out.tolist() == [[1, -2]]
    out.backward(torch.tensor([[1.0, 2.0]]))
    assert layer.mask.scores.grad is not None
    assert layer.mask.scores.grad.tolist() == [[1, 2, 3], [-8, 10, -12]]


def official(x: Tensor, weight: Tensor, bias: Tensor, scores: Tensor, rule: Rule) -> Tensor:
    """Plainly what the official code computes: the gate's value, with the gradient of |S| (MFT) or S (R-AMT)."""
    seen = scores.abs() if rule.folded else scores
    gate = stable(seen.detach(), 12) if isinstance(rule, TopK) else seen.detach() > 0
    return nn.functional.linear(x, weight * (gate.double() + seen - seen.detach()), bias)


@pytest.mark.parametrize("rule", [TopK(0.75), Threshold(0.0)], ids=["topk", "threshold"])
def test_steps_are_those_of_the_official_formula_also_from_scores_of_zero(rule: Rule) -> None:
    """Gradients and scores of ten steps of AdamW, in float64; a score of exactly 0 has the gradient that theirs has."""
    layer = masked(rule, rows=6, columns=8)
    with torch.no_grad():
        layer.mask.scores[::2, ::3] = 0.0
        layer.mask.scores[0, 0] = -0.0
    at_zero = layer.mask.scores == 0
    theirs = nn.Parameter(layer.mask.scores.detach().clone())
    optimizers = [torch.optim.AdamW([scores], lr=3e-3, weight_decay=0.0) for scores in (layer.mask.scores, theirs)]
    weight, bias = layer.linear.weight, layer.linear.bias
    gates = []
    for step in range(10):
        x = torch.randn(4, 8, generator=generator(10 + step), dtype=torch.float64)
        for optimizer in optimizers:
            optimizer.zero_grad()
        ((layer(x) - 1) ** 2).sum().backward()
        ((official(x, weight, bias, theirs, rule) - 1) ** 2).sum().backward()
        found, expected = layer.mask.scores.grad, theirs.grad
        assert found is not None
        assert expected is not None
        torch.testing.assert_close(found, expected, rtol=0, atol=5e-13 * float(expected.abs().max()))
        assert (expected[at_zero] == 0).all() == rule.folded
        gates.append(layer.mask.gate().clone())
        for optimizer in optimizers:
            optimizer.step()
        torch.testing.assert_close(layer.mask.scores, theirs, rtol=0, atol=5e-13)
    assert not torch.equal(gates[0], gates[-1]), "some gates turn"


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_the_backward_is_the_derivative_of_the_surrogate(rule: Rule, alpha: float) -> None:
    """Straight-through means: the gate's value, with |S| or S as its derivative; checked by finite differences."""
    layer = masked(rule)
    layer.interpolate(alpha)
    x = torch.randn(4, 5, generator=generator(3), dtype=torch.float64)
    weight, bias, start = layer.linear.weight, layer.linear.bias, layer.mask.scores.detach().clone()
    gate = layer.mask.gate().detach().double()

    def surrogate(scores: Tensor) -> Tensor:
        if not rule.hard:
            through = 2 / (1 + torch.exp(-scores))
        else:
            through = gate + (scores.abs() - start.abs() if rule.folded else scores - start)
        return (nn.functional.linear(x, weight * (1 - alpha + alpha * through), bias) ** 2).sum()

    loss = (layer(x) ** 2).sum()
    assert loss.item() == pytest.approx(surrogate(start).item(), rel=1e-12)
    (found,) = torch.autograd.grad(loss, layer.mask.scores)
    step = 1e-6
    for index in range(start.numel()):
        move = torch.zeros(start.numel(), dtype=torch.float64)
        move[index] = step
        move = move.view_as(start)
        slope = (surrogate(start + move) - surrogate(start - move)) / (2 * step)
        assert float(found.flatten()[index]) == pytest.approx(float(slope), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("folded", [True, False])
def test_gradients_of_the_backward_itself(folded: bool) -> None:
    weight = torch.randn(3, 4, generator=generator(), dtype=torch.float64, requires_grad=True)
    scores = torch.randn(3, 4, generator=generator(1), dtype=torch.float64, requires_grad=True)
    gate = torch.rand(3, 4, generator=generator(2)) > 0.3
    with_weight = lambda w: StraightThrough.apply(w, scores.detach(), gate, folded, 1.0)  # noqa: E731
    assert torch.autograd.gradcheck(with_weight, (weight,))
    outer = torch.randn(3, 4, generator=generator(3), dtype=torch.float64)

    def to_scores(w: Tensor, s: Tensor, out: Tensor) -> Tensor:
        formed = StraightThrough.apply(w, s, gate, folded, 1.0)
        return torch.autograd.grad(formed, s, out, create_graph=True)[0]

    assert torch.autograd.gradcheck(to_scores, (weight, scores, outer.requires_grad_()))


def test_the_soft_gate_has_the_gradient_that_it_has() -> None:
    weight = torch.randn(3, 4, generator=generator(), dtype=torch.float64)
    scores = torch.randn(3, 4, generator=generator(1), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: weight * Soft().gate(s), (scores,))


# What stays, what is formed when


@pytest.mark.parametrize("rule", [Soft(), Threshold(5e-3)], ids=["soft", "threshold"])
def test_open_gates_begin_at_the_frozen_layer_to_the_bit(rule: Rule) -> None:
    linear = nn.Linear(7, 9).requires_grad_(False)
    value = 0.0 if isinstance(rule, Soft) else 1e-2
    layer = MaskedLinear(linear, Mask(torch.full((9, 7), value), rule))
    x = torch.randn(3, 7, generator=generator())
    assert torch.equal(layer(x), linear(x))
    assert layer.mask.kept() == 1


def test_the_soft_gate_is_bounded() -> None:
    gate = Soft().gate(torch.tensor([-1e4, -1.0, 0.0, 1.0, 1e4]))
    assert gate[2] == 1
    assert gate.min() >= 0
    assert gate.max() <= 2


@pytest.mark.parametrize(("rule", "name"), list(zip(RULES, NAMES, strict=True)), ids=NAMES)
def test_training_moves_scores_and_no_weight_and_merging_changes_nothing(rule: Rule, name: str) -> None:
    layer = masked(rule, 20, 30, torch.float32)
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    x = torch.randn(8, 30, generator=generator(5))
    optimizer = torch.optim.AdamW(layer.mask.parameters(), lr=3e-3, weight_decay=0.0)
    gates = [layer.mask.gate().detach().clone()]
    for _ in range(5):
        optimizer.zero_grad()
        (layer(x) - 1).square().mean().backward()
        optimizer.step()
        gates.append(layer.mask.gate().detach().clone())
        if name.startswith("topk"):
            assert int((~gates[-1]).sum()) == drop_count(rule.keep, 600)  # type: ignore[attr-defined]
    after = layer.state_dict()
    assert torch.equal(after["linear.weight"], before["linear.weight"])
    assert torch.equal(after["linear.bias"], before["linear.bias"])
    assert not torch.equal(after["mask.scores"], before["mask.scores"])
    assert not torch.equal(gates[0], gates[-1]), "some gates move"
    plain = layer.merged()
    assert type(plain) is nn.Linear
    with torch.no_grad():
        assert torch.equal(plain(x), layer(x))
        expected = nn.functional.linear(x, layer.linear.weight * gates[-1], layer.linear.bias)
        assert torch.equal(plain(x), expected)


def test_a_weight_is_formed_once_a_step_and_the_gate_sought_once_a_move(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = masked(TopK(0.9))
    counts = {"sought": 0, "formed": 0}
    gate, form = TopK.gate, Mask._form

    def sought(self: TopK, scores: Tensor) -> Tensor:
        counts["sought"] += 1
        return gate(self, scores)

    def formed(self: Mask, weight: Tensor) -> Tensor:
        counts["formed"] += 1
        return form(self, weight)

    monkeypatch.setattr(TopK, "gate", sought)
    monkeypatch.setattr(Mask, "_form", formed)
    x = torch.randn(4, 5, generator=generator(), dtype=torch.float64)
    once = torch.autograd.grad(layer(x).sum(), layer.mask.scores)[0]
    (layer(x) + layer(x)).sum().backward()
    torch.testing.assert_close(layer.mask.scores.grad, 2 * once)
    assert counts == {"sought": 1, "formed": 2}, "two backward passes need two graphs, the scores have not moved"
    torch.optim.SGD(layer.mask.parameters(), lr=0.1).step()
    layer(x)
    layer(x)
    assert counts == {"sought": 2, "formed": 3}
    with torch.no_grad():
        layer(x)
        layer(x)
    assert counts == {"sought": 2, "formed": 4}
    with torch.no_grad():
        layer.linear.weight.mul_(2)
        layer(x)
    assert counts == {"sought": 2, "formed": 5}, "another weight (a start) is masked anew"


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_training_after_inference_mode(rule: Rule) -> None:
    layer = masked(rule)
    x = torch.randn(4, 5, generator=generator(), dtype=torch.float64, requires_grad=True)
    with torch.inference_mode():
        layer(x.detach())
    layer(x).sum().backward()
    layer.mask.scores.requires_grad_(False)
    with torch.inference_mode():
        layer(x.detach())
    layer(x).sum().backward()


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_interpolation_towards_the_frozen_layer(rule: Rule) -> None:
    for alpha in (0.0, 0.25, 1.0):
        layer = masked(rule)
        weight, gate = layer.linear.weight, layer.mask.gate().detach().double()
        layer.interpolate(alpha)
        found = layer.merged().weight
        torch.testing.assert_close(found, weight * (1 - alpha + alpha * gate), rtol=1e-14, atol=0)
        if alpha == 0:
            assert torch.equal(found, weight)
        if rule.hard:
            assert torch.equal(found[gate == 1], weight[gate == 1])


# Where scores begin, and bits


@pytest.mark.parametrize("init", ["magnitude", "normal", "kaiming_uniform", "constant"])
def test_where_scores_begin(init: ScoreInit) -> None:
    weight = torch.randn(400, 300, generator=generator())
    scores = initial_scores(weight, init, 0.02, generator(7))
    assert scores.shape == weight.shape
    if init == "magnitude":
        torch.testing.assert_close(scores, weight.abs() / weight.abs().mean() * 0.02)
        smallest = weight.abs().flatten().argsort()[:12_000]
        assert not TopK(0.9).gate(scores).flatten()[smallest].any(), "the smallest weights go first"
    elif init == "normal":
        assert abs(float(scores.std()) - 0.02) < 2e-4
        assert abs(float(scores.mean())) < 2e-4
    elif init == "kaiming_uniform":
        expected = nn.init.kaiming_uniform_(torch.empty(400, 300), a=math.sqrt(5), generator=generator(7))
        torch.testing.assert_close(scores, expected)
    else:
        assert scores.unique().tolist() == [pytest.approx(0.02)]
    assert torch.equal(scores, initial_scores(weight, init, 0.02, generator(7)))
    described = initial_scores(weight.to("meta"), init, 0.02, generator(7))
    assert described.is_meta
    assert described.shape == weight.shape


def test_distances() -> None:
    scores = torch.tensor([0.4, -0.1, 0.3, -0.2, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    assert TopK(0.8).distance(scores) == pytest.approx(0.2)
    assert TopK(1.0).distance(scores) == 0
    assert Threshold(5e-3).distance(torch.full((3, 3), 1e-2)) == pytest.approx(5e-3)
    assert Soft().distance(scores) == 1


@given(st.integers(1, 70), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_bits_come_back(entries: int, seed: int) -> None:
    gate = torch.rand(entries, generator=generator(seed)) > 0.4
    bits = pack(gate)
    assert bits.dtype == torch.uint8
    assert bits.numel() == math.ceil(entries / 8)
    assert torch.equal(unpack(bits, gate.shape), gate)
    assert pack(gate.to("meta")).shape == bits.shape
    with pytest.raises(MethodError, match=f"{entries} entries"):
        unpack(torch.cat([bits, bits]), gate.shape)


@pytest.mark.parametrize(
    "rule",
    [TopK(0.9), TopK(1.0), Threshold(5e-3), Threshold(-0.3), Threshold(2.0)],
    ids=["top 0.9", "top 1", "above 0.005", "above -0.3", "above 2"],
)
def test_the_same_rule_makes_the_same_gate_of_bits(rule: Rule) -> None:
    scores = torch.randn(30, 11, generator=generator())
    gate = rule.gate(scores)
    again = make_rule("topk_abs", rule.keep, 0.0) if isinstance(rule, TopK) else rule
    back = again.scores_of(unpack(pack(gate), gate.shape))
    assert torch.equal(again.gate(back), gate)
    assert not rule.folded or back.all(), "a score of 0 has no gradient, so that no fit could go on from it"


def test_bits_of_another_keep_ratio_are_refused() -> None:
    with pytest.raises(MethodError, match=r"drops 10 of 100 .* 0\.8 drops 20"):
        TopK(0.8).scores_of(TopK(0.9).gate(torch.randn(100, generator=generator())))
    with pytest.raises(MethodError, match="soft"):
        Soft().scores_of(torch.ones(3, dtype=torch.bool))
