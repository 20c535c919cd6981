"""What torch and Lightning do to a view: conversions share one copy, and nothing else of the backbone moves."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clipbench.backbone import PromptPlan
from clipbench.backbone.clip import Backbone, load_backbone
from clipbench.backbone.open_clip_towers import OpenClipImageTower
from clipbench.backbone.view import BackboneView
from clipbench.errors import BackboneError
from clipbench.testing import backbones
from tests.backbone.in_views import NAMES, Doubled, Halved, Scaled, equal, features

LINEAR = "image.blocks.0.mlp.fc"


@pytest.fixture
def backbone(tiny: Any) -> Backbone:
    return tiny()


def storages(module: nn.Module) -> dict[str, int]:
    """Where every tensor lies; also on the meta device, where tensors have no address."""
    return {name: tensor.untyped_storage()._cdata for name, tensor in module.named_parameters()}


@pytest.mark.parametrize("target", [{"device": "meta"}, {"dtype": torch.float64}], ids=["device", "dtype"])
def test_ten_views_elsewhere_hold_every_frozen_tensor_once(backbone: Backbone, target: dict[str, Any]) -> None:
    views = [backbone.view() for _ in range(10)]
    for view in views:
        view.unfreeze(NAMES)
        view.replace_linear(LINEAR, Scaled)
        view.to(**target)
    assert len(backbone._copies) == 1, "the copy is made once"
    twin = views[0].pretrained
    assert twin is not backbone
    shared = storages(twin)
    seen = [storages(view) for view in views]
    for name in shared.keys() - set(NAMES):
        inside = name.replace(LINEAR, f"{LINEAR}.linear")
        assert {where[inside] for where in seen} == {shared[name]}, name
    for name in [*NAMES, f"{LINEAR}.factor"]:
        assert len({where[name] for where in seen} | {shared.get(name, -1)}) == 11, name
    assert all(view.pretrained is twin for view in views)
    assert all(p.device == twin.logit_scale.device and p.dtype == twin.logit_scale.dtype for p in views[3].parameters())


def test_a_copy_elsewhere_is_shared_too_and_refuses_what_the_backbone_refuses(backbone: Backbone) -> None:
    view = backbone.view().double()
    assert view.pretrained.compute_hash() != backbone.hash, "the hash is of bytes, and these are other bytes"
    for tensor, wide in zip(backbone.parameters(), view.pretrained.parameters(), strict=True):
        assert torch.equal(tensor.double(), wide)
    with pytest.raises(BackboneError, match="is shared by the process and stays as it was loaded"):
        view.pretrained.half()
    assert view.pretrained._tokenizer is backbone._tokenizer
    assert view.pretrained.spec is backbone.spec


def test_there_and_back_nothing_frozen_is_rounded(backbone: Backbone) -> None:
    """Lightning moves a method to the CPU after every run."""
    view = backbone.view()
    name = "image.proj"
    trained = view.unfreeze([name])[name]
    before = trained.detach().clone()
    halved = Halved()
    view.parametrize("text.proj", halved)
    view.half()
    assert view.get_parameter("image.ln_pre.weight").dtype == torch.float16
    assert view.get_parameter(name) is trained
    assert halved.factor.dtype == torch.float16
    assert view.pretrained.get_parameter(name).dtype == torch.float16
    view.float()
    assert view.pretrained is backbone
    for leaf, parameter in view.named_parameters():
        if "proj" not in leaf or "blocks" in leaf:
            assert parameter.data_ptr() == backbone.get_parameter(leaf).data_ptr(), leaf
    assert torch.equal(view.get_parameter("text.parametrizations.proj.original"), backbone.get_parameter("text.proj"))
    assert torch.equal(trained, before.half().float())
    assert trained.requires_grad


def test_a_conversion_to_where_it_is_changes_nothing(backbone: Backbone) -> None:
    view = backbone.view()
    trained = view.unfreeze(NAMES)
    before = storages(view)
    view.to("cpu").float().cpu()
    assert storages(view) == before
    assert view.pretrained is backbone
    assert all(view.get_parameter(name) is parameter for name, parameter in trained.items())
    assert not backbone._copies


def test_what_is_merged_follows_a_conversion(backbone: Backbone) -> None:
    view = backbone.view()
    view.replace_linear(LINEAR, Doubled)
    with view.merged():
        features(view)
    view.double()
    apart = view.encode_image(torch.ones(1, 3, 16, 16).double())
    with view.merged():
        torch.testing.assert_close(view.encode_image(torch.ones(1, 3, 16, 16).double()), apart)


def test_a_shared_backbone_refuses_to_be_converted_and_loaded(tmp_path: Path) -> None:
    name = backbones.write_transformer(tmp_path / "shared")
    backbone = load_backbone(name)
    assert load_backbone(name) is backbone
    state = backbone.state_dict()
    for convert in (lambda: backbone.to("meta"), backbone.half, backbone.double, lambda: backbone.to(torch.bfloat16)):
        with pytest.raises(
            BackboneError, match=r"is shared by the process and stays as it was loaded; convert a `view"
        ):
            convert()
    with pytest.raises(BackboneError, match="put into a `view"):
        backbone.load_state_dict(state)
    assert backbone.compute_hash() == backbone.hash
    backbone.view().half()
    assert backbone.compute_hash() == backbone.hash


# State dicts, copies


def test_the_state_dict_does_not_reach_the_backbone(backbone: Backbone) -> None:
    view = backbone.view()
    view.unfreeze(NAMES)
    assert view.state_dict().keys() == backbone.state_dict().keys()
    children = {name for name, _ in view.named_modules()}
    assert not any("pretrained" in name or "_loaded" in name for name in children)
    assert sum(1 for _ in view.parameters()) == sum(1 for _ in backbone.parameters())


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("assign", [False, True])
def test_loading_into_what_is_shared_is_refused(backbone: Backbone, wrapped: bool, assign: bool) -> None:
    view = backbone.view()
    trained = view.unfreeze(NAMES)
    owner: nn.Module = nn.ModuleDict({"backbone": view}) if wrapped else view
    state = {name: torch.zeros_like(tensor) for name, tensor in owner.state_dict().items()}
    with pytest.raises(BackboneError, match="which is the backbone's own: load what is trained alone"):
        owner.load_state_dict(state, strict=False, assign=assign)
    assert backbone.compute_hash() == backbone.hash
    assert all(bool(parameter.any()) for parameter in trained.values()), "it is refused before anything is loaded"
    prefix = "backbone." if wrapped else ""
    owner.load_state_dict({prefix + name: state[prefix + name] for name in NAMES}, strict=False)
    assert not any(bool(parameter.any()) for parameter in trained.values())
    assert backbone.compute_hash() == backbone.hash


def test_copies_and_pickles_of_a_view_are_refused(backbone: Backbone) -> None:
    view = backbone.view()
    with pytest.raises(BackboneError, match="a view belongs to one method: copy the method, or take another view"):
        copy.deepcopy(view)
    for attempt in (pickle.dumps, copy.copy, lambda v: torch.save(v, io.BytesIO())):
        with pytest.raises(BackboneError, match="a view is not pickled by itself: the method that it belongs to is"):
            attempt(view)
    with pytest.raises(BackboneError, match="a view is taken of the backbone itself"):
        view.view()


# The tokenizer, and what fills sequences up


class Words:
    """A tokenizer whose padding is not what the config says, as Hugging Face's may be."""

    pad = 7
    calls = 0

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        self.calls += 1
        return [[62, *(1 + len(word) for word in text.split()), 63] for text in texts]


def test_one_tokenizer_serves_all_and_fills_up_alike(tiny: Any) -> None:
    backbone = tiny(text={"no_causal_mask": True})
    assert backbone.text.pad == 0
    texts = ["a cat", "a very large dog"]
    early, wide = backbone.view(), backbone.view().double()
    backbone._tokenizer = words = Words()
    late = backbone.view()
    with torch.no_grad():
        zero = backbone.encode_text(PromptPlan(words(texts)))
        plans = [PromptPlan(view.tokenize(texts)) for view in (early, late)]
        seven = backbone.encode_text(PromptPlan(words(texts)))
        assert not torch.allclose(zero, seven), "in this tower padding matters"
        for view, plan in zip((early, late), plans, strict=True):
            assert torch.equal(view.encode_text(plan), seven)
            assert torch.equal(view.pretrained.encode_text(plan), seven)
        wide.tokenize(texts)
        for tower in (wide, wide.pretrained):
            torch.testing.assert_close(tower.encode_text(plans[0]), seven.double(), rtol=1e-4, atol=1e-4)
    assert backbone._tokenizer is words
    assert all(view._tokenizer is None for view in (early, late, wide)), "shared, never copied"


def test_a_copy_that_was_made_before_the_tokenizer_fills_up_alike(tiny: Any) -> None:
    backbone = tiny(text={"no_causal_mask": True})
    here, there = backbone.view(), backbone.view().double()
    backbone._tokenizer = Words()
    plan = PromptPlan(here.tokenize(["a cat", "a very large dog"]))
    here.double()
    assert here.pretrained is there.pretrained
    with torch.no_grad():
        assert torch.equal(here.pretrained.encode_text(plan), here.encode_text(plan))


# Tied tensors, and modules that know of each other


class Tied(nn.Module):
    """An image tower with one matrix in two places, and one that it also finds by a list and by a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3 * 16 * 16, 12, bias=False), nn.Linear(12, 12, bias=False)
        self.third = nn.Linear(12, 12, bias=False)
        self.third.weight = self.second.weight
        self.layers = [self.first, self.second]
        self.third.register_forward_hook(self.add)

    def add(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output + inputs[0] @ self.second.weight

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1)
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return self.third(x)


@pytest.fixture
def tied(backbone: Backbone) -> Backbone:
    torch.manual_seed(0)
    whole = Backbone(backbone.spec, OpenClipImageTower(Tied(), "it is tied", "visual."), backbone.text)
    whole.hash = whole.compute_hash()
    return whole


def test_tied_tensors_stay_tied(tied: Backbone) -> None:
    first, second = "image.module.second.weight", "image.module.third.weight"
    view = tied.view()
    assert equal(features(view), features(tied))
    trained = view.unfreeze([first])[first]
    tower: Any = view.image.module
    assert tower.second.weight is tower.third.weight is trained
    assert first in dict(view.named_parameters())
    with pytest.raises(BackboneError, match="stands in several places"):
        view.parametrize(first, Halved())
    with torch.no_grad():
        trained.mul_(2)
    other = copy.deepcopy(tied)
    with torch.no_grad():
        other.get_parameter(first).mul_(2)
    assert equal(features(view), features(other)), "hooks and lists in the copy mean the copy"
    for target in (torch.float64, torch.float32, "meta"):
        view.to(target)
        assert tower.second.weight is tower.third.weight
        assert tower.second.weight.requires_grad
    frozen: BackboneView = tied.view().to("meta")  # type: ignore[assignment]
    assert frozen.get_parameter(first) is frozen.get_parameter(second)
    assert tied.compute_hash() == tied.hash
