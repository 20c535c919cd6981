"""FisherAdapTune: what it trains, what it stores, and how its mistakes are shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from clipbench.methods.deliverable import load_method, save_deliverable

from clipbench.errors import ConfigError, MethodError, UnknownName
from clipbench.methods.base import Method
from clipbench.methods.fisher_adaptune import FisherAdapTune
from clipbench.methods.fisher_freezing import FisherFreezing
from clipbench.tuning.fisher_settings import FAITHFUL


def test_it_trains_blocks_norms_and_projections(make: Callable[..., Method]) -> None:
    method = make(FisherAdapTune)
    inside = {name for name, _ in method.backbone.named_parameters()} - set(method.built())
    assert {name.rpartition(".")[2] if "patch_embed" not in name else "patch_embed" for name in inside} == {
        "class_embedding", "positional_embedding", "patch_embed", "weight", "logit_scale",
    }  # fmt: skip
    assert {name for name in inside if name.endswith(".weight")} == {
        "image.patch_embed.weight", "text.token_embedding.weight",
    }  # fmt: skip
    assert method.trained_count() == sum(parameter.numel() for parameter in method.built().values())


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


def test_only_what_moved_is_stored(make: Callable[..., Method], tmp_path: Path) -> None:
    method = make(FisherAdapTune)
    names = list(method.built())[3:5]
    with torch.no_grad():
        for name in names:
            method.built()[name].view(-1)[0] += 1
    assert list(method.learned()) == names
    path = tmp_path / "deliverable.safetensors"
    size = save_deliverable(path, method, "shapes")
    assert size < 4 * sum(method.built()[name].numel() for name in names) + 5000
    values = {name: method.built()[name].detach().clone() for name in method.built()}
    method.release()
    loaded = load_method(path)
    try:
        for name, value in values.items():
            assert torch.equal(loaded.built()[name], value), name
    finally:
        loaded.release()


def test_tensors_of_another_selection_do_not_fit(make: Callable[..., Method]) -> None:
    method = make(FisherAdapTune, train=["text tower, LayerNorm"])
    with pytest.raises(MethodError, match="do not fit FisherAdapTune"):
        method.take({"text.proj": torch.zeros(2, 2)})
    with pytest.raises(MethodError, match="do not fit FisherAdapTune"):
        method.take({"text.ln_final.bias": torch.zeros(2)})


def test_it_needs_blocks_only_of_the_towers_it_names() -> None:
    assert set(FisherAdapTune.needs) == {"image", "text"}
    assert set(FisherAdapTune(train=["text tower, blocks all, everything"]).needs) == {"text"}
