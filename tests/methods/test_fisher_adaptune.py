"""FisherAdapTune: what it trains, what it stores, and how its mistakes are shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clipbench.errors import ConfigError, MethodError, UnknownName, UnreadSetting
from clipbench.methods.arguments import from_stored
from clipbench.methods.base import Method
from clipbench.methods.fisher_adaptune import FisherAdapTune
from clipbench.methods.fisher_freezing import FisherFreezing
from clipbench.tuning.fisher_settings import FAITHFUL


def test_it_trains_blocks_norms_and_projections(make: Callable[..., Method]) -> None:
    method = make(FisherAdapTune)
    inside = {name for name, _ in method.backbone.named_parameters()} - set(method.trainable)
    assert {name.rpartition(".")[2] if "patch_embed" not in name else "patch_embed" for name in inside} == {
        "class_embedding", "positional_embedding", "patch_embed", "weight", "logit_scale",
    }  # fmt: skip
    assert {name for name in inside if name.endswith(".weight")} == {
        "image.patch_embed.weight", "text.token_embedding.weight",
    }  # fmt: skip
    assert method.num_trainable() == sum(parameter.numel() for parameter in method.trainable.values())


def test_its_callback_is_the_one_it_was_told(make: Callable[..., Method]) -> None:
    method = make(FisherAdapTune, mode="faithful", freezing={"width": 0.5})
    (callback,) = method.configure_callbacks()
    assert isinstance(callback, FisherFreezing)
    assert callback.settings.width == 0.5
    assert callback.settings.estimate == FAITHFUL.estimate


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"freezing": {"lamda": 1}}, UnknownName, "lamda"),
        ({"freezing": {"mode": "faithful"}}, ConfigError, "mode"),
        ({"mode": "faithfull"}, UnknownName, "faithful"),
        ({"freezing": {"score": "jds"}}, UnknownName, "jsd"),
    ],
)
def test_wrong_settings_are_told_before_anything_is_loaded(
    arguments: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        FisherAdapTune(backbone="not looked at", **arguments)


def test_a_setting_that_nothing_reads_is_refused() -> None:
    with pytest.raises(UnreadSetting, match=r"momentum=0\.9 .* adamw"):
        FisherAdapTune(optimizer="adamw", momentum=0.9)


@pytest.mark.parametrize(
    ("mode", "freezing", "words"),
    [
        ("corrected", {"accumulate": True}, "accumulate=True .* squared_gradients"),
        ("corrected", {"packed_attention": False}, "packed_attention=False .* squared_gradients"),
        ("corrected", {"slice_mode": "row"}, "slice_mode='row' .* matrices"),
        ("faithful", {"entries": 100}, "entries=100 .* kronecker"),
    ],
)
def test_a_setting_of_the_freezing_that_nothing_reads_is_refused(
    mode: Any, freezing: dict[str, Any], words: str
) -> None:
    with pytest.raises(UnreadSetting, match=words):
        FisherAdapTune(mode=mode, freezing=freezing)
    stored = {"mode": mode, "freezing": freezing}
    assert from_stored(FisherAdapTune, stored).freezing == {}, "weights of earlier versions stay readable"
    assert stored["freezing"], "what was stored is left alone"


def test_only_what_moved_is_stored(make: Callable[..., Method], tmp_path: Path) -> None:
    method = make(FisherAdapTune)
    names = list(method.trainable)[3:5]
    with torch.no_grad():
        for name in names:
            method.trainable[name].view(-1)[0] += 1
    assert list(method.adapter_state_dict()) == names
    path = tmp_path / "weights.safetensors"
    size = method.save(path)
    assert size < 4 * sum(method.trainable[name].numel() for name in names) + 5000
    values = {name: method.trainable[name].detach().clone() for name in method.trainable}
    loaded = Method.load(path)
    for name, value in values.items():
        assert torch.equal(loaded.trainable[name], value), name


def test_tensors_of_another_selection_do_not_fit(make: Callable[..., Method]) -> None:
    method = make(FisherAdapTune, train=["text tower, LayerNorm"])
    with pytest.raises(MethodError, match="stored tensors do not fit"):
        method.load_adapter_state_dict({"text.proj": torch.zeros(2, 2)})
    with pytest.raises(MethodError, match="stored tensors do not fit"):
        method.load_adapter_state_dict({"text.ln_final.bias": torch.zeros(2)})


def test_it_needs_blocks_only_of_the_towers_it_names() -> None:
    assert set(FisherAdapTune().requires()) == {"image", "text"}
    assert set(FisherAdapTune(train=["text tower, blocks all, everything"]).requires()) == {"text"}
