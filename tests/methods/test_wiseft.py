"""WiSE-FT: 0 is zero-shot, 1 the tuned model, between them the formula; what it stores stands alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clipbench.errors import ConfigError, MethodError
from clipbench.methods.adapter import Adapter
from clipbench.methods.base import Method
from clipbench.methods.clipfit import CLIPFit
from clipbench.methods.coop import CoOp
from clipbench.methods.fine_tuning import FineTuning
from clipbench.methods.fisher_adaptune import FisherAdapTune
from clipbench.methods.linear_probe import LinearProbe
from clipbench.methods.lora import LoRA
from clipbench.methods.mft import MFT
from clipbench.methods.peft import Peft
from clipbench.methods.ramt import RAMT
from clipbench.methods.weights_file import read_header, read_learned
from clipbench.methods.wiseft import WiSEFT
from clipbench.methods.zero_shot import ZeroShot
from clipbench.testing.subject import pretrained_logits
from tests.methods.small import images, learn

Make = Callable[..., Method]
INNER: dict[str, tuple[type[Method], dict[str, Any]]] = {
    "full": (FineTuning, {}),
    "clipfit": (CLIPFit, {}),
    "lora": (LoRA, {}),
    "adapter": (Adapter, {}),
    "dropout": (LoRA, {"dropout": 0.5}),
    "peft": (Peft, {"config": {"peft_type": "LORA", "r": 2}}),
    "mft": (MFT, {"train": ["image tower, blocks all, Linears"], "keep": 0.7}),
    "soft": (MFT, {"train": ["image tower, blocks all, Linears"], "rule": "soft"}),
    "ramt": (RAMT, {"score_init": 0.02}),
    "fisher": (FisherAdapTune, {}),
}


@torch.no_grad()
def scores(method: Method) -> Tensor:
    """Of two images for the base and for the novel classes, side by side."""
    method.eval()
    features = method.image_features(images(method))
    return torch.cat([method.logits(features, method.class_features(s.classnames)) for s in method.task.tests], dim=1)


@torch.no_grad()
def zero_shot(method: Method) -> Tensor:
    names = [name for split in method.task.tests for name in split.classnames]
    return pretrained_logits(method, images(method), names)


def tuned(make: Make, path: Path, kind: type[Method], **arguments: Any) -> Tensor:
    """Scores of a method whose trained numbers are others now; its weights lie at `path`."""
    method = learn(make(kind, **arguments), 0.05)
    expected = scores(method)
    method.save(path)
    return expected


@pytest.mark.parametrize("name", INNER)
def test_from_zero_shot_to_the_tuned_model(make: Make, tmp_path: Path, name: str) -> None:
    kind, arguments = INNER[name]
    path = tmp_path / "tuned.safetensors"
    expected = tuned(make, path, kind, **arguments)
    found = {}
    for alpha in (0.0, 0.5, 1.0):
        wise = make(WiSEFT, start=str(path), alpha=alpha)
        found[alpha], untouched = scores(wise), zero_shot(wise)
        counted = sum(p.numel() for p in wise.trainable.values())
        assert counted == wise.num_trainable() == wise.weights.num_active() > 0
    assert not torch.allclose(expected, untouched, atol=1e-2), "the tuned model is the untouched one"
    torch.testing.assert_close(found[0.0], untouched, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[1.0], expected, rtol=1e-5, atol=1e-5)
    assert min((found[0.5] - found[alpha]).abs().max() for alpha in (0.0, 1.0)) > 1e-3


def test_the_formula_in_every_tensor(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "tuned.safetensors"
    tuned(make, path, FineTuning)
    after = FineTuning.load(path)
    ends = {
        name: (after.backbone.pretrained_tensor(name).double(), p.detach().double())
        for name, p in after.trainable.items()
    }
    wise = make(WiSEFT, start=str(path), alpha=0.3)
    for name, (before, now) in ends.items():
        expected = 0.7 * before + 0.3 * now
        torch.testing.assert_close(wise.trainable[name].detach().double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", INNER)
def test_its_weights_stand_alone(make: Make, tmp_path: Path, name: str) -> None:
    kind, arguments = INNER[name]
    path, own = tmp_path / "tuned.safetensors", tmp_path / "wise.safetensors"
    tuned(make, path, kind, **arguments)
    wise = make(WiSEFT, start=str(path), alpha=0.4)
    expected = scores(wise)
    size = wise.save(own)
    assert size < path.stat().st_size + 4_000
    task = wise.task
    wise.setup(learned=read_learned(own))  # also into one that is interpolated already
    path.unlink()
    loaded = WiSEFT.load(own)
    assert loaded.alpha == 0.4
    for method in (wise, loaded):
        method.setup(task=task)
        assert torch.equal(scores(method), expected)


SECOND: dict[str, tuple[type[Method], dict[str, Any]]] = {
    "other tensors": INNER["mft"], "the same tensors": (FineTuning, {"train": ["text tower, biases"]}),
}  # fmt: skip


@pytest.mark.parametrize("second_stage", SECOND)
def test_back_through_two_stages(make: Make, tmp_path: Path, second_stage: str) -> None:
    """A method that began from another one's weights goes back to the pretrained model, not to its start."""
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    kind, settings = SECOND[second_stage]
    tuned(make, first, CLIPFit)
    expected = tuned(make, second, kind, **settings, start=str(first))
    for alpha in (0.0, 1.0):
        wise = make(WiSEFT, start=str(second), alpha=alpha)
        torch.testing.assert_close(scores(wise), expected if alpha else zero_shot(wise), rtol=1e-5, atol=1e-5)
        wise.save(tmp_path / f"{alpha}.safetensors")
    first.unlink(), second.unlink()
    for alpha in (0.0, 1.0):
        loaded = Method.load(tmp_path / f"{alpha}.safetensors")
        loaded.setup(task=wise.task)
        torch.testing.assert_close(scores(loaded), expected if alpha else zero_shot(loaded), rtol=1e-5, atol=1e-5)


def test_peft_that_began_from_other_weights_has_no_way_back(make: Make, tmp_path: Path) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    tuned(make, first, FineTuning, train=["text tower, blocks all, attn.q_proj.bias"])
    tuned(make, second, Peft, config=INNER["peft"][1]["config"], start=str(first))
    with pytest.raises(MethodError, match=r"the start lies inside a .*: there is no way back"):
        make(WiSEFT, start=str(second))


def test_what_was_frozen_in_training_stays_known(make: Make, tmp_path: Path) -> None:
    path, own = tmp_path / "tuned.safetensors", tmp_path / "wise.safetensors"
    method = make(FisherAdapTune)
    method.weights.active_entries = 100
    method.save(path)
    wise = make(WiSEFT, start=str(path))
    assert wise.weights.num_active() == 100
    wise.save(own)
    assert Method.load(own).weights.num_active() == 100


def test_half_of_a_half_is_a_quarter(make: Make, tmp_path: Path) -> None:
    path, half = tmp_path / "tuned.safetensors", tmp_path / "half.safetensors"
    tuned(make, path, FineTuning)
    wise = make(WiSEFT, start=str(path), alpha=0.25)
    expected = scores(wise)
    make(WiSEFT, start=str(path), alpha=0.5).save(half)
    wise = make(WiSEFT, start=str(half), alpha=0.5)
    torch.testing.assert_close(scores(wise), expected, rtol=1e-4, atol=1e-4)


def test_heads_without_a_way_back_are_refused(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "learned.safetensors"
    for method in (make(LinearProbe), make(CoOp, context_words="", n_context=2)):
        method.save(path)
        with pytest.raises(MethodError, match="not made from the pretrained model: no way back"):
            make(WiSEFT, start=str(path))


def test_class_specific_contexts_keep_their_rule(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "contexts.safetensors"
    make(CoOp, class_specific=True, context_words="art of the").save(path)
    wise = make(WiSEFT, start=str(path)).eval()
    base, novel = (split.classnames for split in wise.task.tests)
    assert wise.novel_rule == "frozen"
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        zero_shot = make(ZeroShot)
        assert not torch.allclose(wise(images, base), zero_shot(images, base), atol=1e-3)
        assert torch.equal(wise(images, novel), zero_shot(images, novel))


def test_what_it_takes_from_the_tuned_model(make: Make, small: str, tmp_path: Path) -> None:
    path = tmp_path / "tuned.safetensors"
    tuned(make, path, CLIPFit, template_set="single")
    assert WiSEFT(backbone=small, start=str(path)).template_set == "single"
    assert WiSEFT(backbone=small, start=str(path), template_set="coop").template_set == "coop"
    wise = make(WiSEFT, start=str(path))
    assert read_header(path).as_dict() == wise.hparams["start"]
    assert set(wise.hparams) == {"backbone", "template_set", "start", "alpha"}


def test_wrong_calls(make: Make, small: str) -> None:
    with pytest.raises(ConfigError, match=r"alpha.*\[0, 1\]"):
        WiSEFT(backbone=small, alpha=1.5)
    with pytest.raises(MethodError, match="clipbench bench"):
        make(WiSEFT, start="full")
