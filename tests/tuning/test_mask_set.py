"""The masks of a method over a view: where they lie, as bits and back, and what they came to."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor

from clipbench.backbone.clip import Backbone
from clipbench.backbone.view import BackboneView
from clipbench.errors import MethodError
from clipbench.tuning.gates import Rule, Soft, Threshold, TopK
from clipbench.tuning.mask_set import MaskSet
from clipbench.tuning.masks import Mask, MaskedLinear

LINEARS = ["image.blocks.1.attn.q_proj", "text.blocks.0.mlp.fc"]
BARE = "image.proj"
NAMES = [f"{name}.weight" for name in LINEARS] + [BARE]


def scores(name: str, weight: Tensor) -> Tensor:
    return 0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(NAMES.index(name)))


def put(view: BackboneView, rule: type[Rule] = TopK, *settings: float) -> MaskSet:
    masks = MaskSet()
    trained = masks.put(view, LINEARS, [BARE], lambda name, weight: Mask(scores(name, weight), rule(*settings)))
    assert list(trained) == [f"{name}.scores" for name in NAMES]
    assert all(trained[f"{name}.scores"] is masks.masks[name].scores for name in NAMES)
    return masks


def pixels() -> Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_masks_act_in_the_view_and_nowhere_else(backbone: Backbone, view: BackboneView) -> None:
    masks = put(view, TopK, 0.5)
    assert all(isinstance(view.get_submodule(name), MaskedLinear) for name in LINEARS)
    other = copy.deepcopy(backbone)
    with torch.no_grad():
        for name in NAMES:
            drop = (
                scores(name, other.get_parameter(name))
                .abs()
                .flatten()
                .argsort()[: other.get_parameter(name).numel() // 2]
            )
            other.get_parameter(name).view(-1)[drop] = 0
    assert torch.equal(view.encode_image(pixels()).detach(), other.encode_image(pixels()))
    changed = view.changed_tensors()
    assert set(changed) == set(NAMES)
    assert all(torch.equal(changed[name], other.get_parameter(name)) for name in NAMES)
    assert view.can_hold(mask.scores for mask in masks.masks.values())
    assert backbone.compute_hash() == backbone.hash


@pytest.mark.parametrize(("rule", "setting"), [(TopK, 0.7), (Threshold, 5e-3)])
def test_bits_make_the_same_gates_in_another_view(backbone: Backbone, rule: type[Rule], setting: float) -> None:
    first, second = backbone.view(), backbone.view()
    here, there = put(first, rule, setting), put(second, rule, setting)
    with torch.no_grad():
        for mask in here.masks.values():
            mask.scores.mul_(torch.linspace(-1, 1, mask.scores.numel()).view_as(mask.scores))
        assert not torch.equal(first.encode_image(pixels()), second.encode_image(pixels()))
        bits = here.bits()
        assert set(bits) == {f"{name}.bits" for name in NAMES}
        assert all(bits[f"{name}.bits"].numel() == -(-here.masks[name].scores.numel() // 8) for name in NAMES)
        there.load_bits(bits)
        assert torch.equal(first.encode_image(pixels()), second.encode_image(pixels()))
    assert here.hard
    with pytest.raises(MethodError, match=r"the stored masks do not fit: \['image\.proj\.bits'\]"):
        there.load_bits({name: value for name, value in bits.items() if not name.startswith(BARE)})


def test_soft_masks_are_their_scores(view: BackboneView) -> None:
    masks = put(view, Soft)
    assert not masks.hard
    stored = masks.bits()
    assert all(torch.equal(stored[f"{name}.scores"], masks.masks[name].scores) for name in NAMES)
    assert not any(tensor.requires_grad for tensor in stored.values())


def test_what_they_came_to(view: BackboneView) -> None:
    masks = put(view, Threshold, 0.0)
    sizes = {name: mask.scores.numel() for name, mask in masks.masks.items()}
    kept = {name: int((scores(name, mask.scores) > 0).sum()) for name, mask in masks.masks.items()}
    masks.begin()
    with torch.no_grad():
        for mask in masks.masks.values():
            mask.scores.view(-1)[:10] *= -1
    for name, mask in masks.masks.items():
        kept[name] = int((mask.scores > 0).sum())
    found = masks.diagnostics()
    assert found["kept"] == pytest.approx(sum(kept.values()) / sum(sizes.values()), rel=1e-12)
    assert found["kept_by_matrix"] == {name: round(kept[name] / sizes[name], 6) for name in NAMES}
    assert found["turned"] == pytest.approx(30 / sum(sizes.values()), rel=1e-12)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda mask: pickle.loads(pickle.dumps(mask))], ids=["copy", "pickle"]
)
@pytest.mark.parametrize("rule", [TopK(0.5), Threshold(0.0), Soft()], ids=["topk", "threshold", "soft"])
def test_a_mask_is_copied_after_a_forward_pass(rule: Rule, copied: object) -> None:
    """What was formed is part of a graph, which can be neither copied nor pickled."""
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    mask = Mask(torch.randn(4, 6, generator=torch.Generator().manual_seed(1)), rule)
    formed = mask(weight)
    assert mask(weight) is formed
    again = copied(mask)  # type: ignore[operator]
    assert again.scores is not mask.scores
    assert torch.equal(again(weight), formed)
    with torch.no_grad():
        again.scores.neg_()
        again.scores[0] = 1
    assert torch.equal(mask(weight), formed), "the first mask goes on with its own scores"
    formed.sum().backward()
    assert mask.scores.grad is not None
    assert again.scores.grad is None


def test_merged_masks_follow_scores_and_interpolation(view: BackboneView) -> None:
    masks = put(view, TopK, 0.5)
    with view.merged():
        before = view.encode_image(pixels()).detach()
    with torch.no_grad():
        for mask in masks.masks.values():
            mask.scores.mul_(torch.linspace(-1, 1, mask.scores.numel()).view_as(mask.scores))
    apart = view.encode_image(pixels()).detach()
    assert not torch.allclose(before, apart)
    with view.merged():
        assert torch.equal(view.encode_image(pixels()).detach(), apart)
