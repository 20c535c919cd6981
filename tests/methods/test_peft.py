"""Configurations of the peft library: the same Linears, the same numbers, nothing from global state, nothing left."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clipbench.backbone.clip import load_backbone
from clipbench.bench.trained_parameters import trained_by
from clipbench.errors import ConfigError, UnknownName, UnreadSetting
from clipbench.methods.base import Method
from clipbench.methods.lora import LoRA
from clipbench.methods.peft import Peft
from clipbench.testing.subject import pretrained_logits
from tests.methods.small import images, learn, scores

pytest.importorskip("peft")

QV = "both towers, blocks all, attn.q_proj and attn.v_proj"
LORA = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}
DORA = LORA | {"use_dora": True}
PISSA = LORA | {"init_lora_weights": "pissa"}
VERA = {"peft_type": "VERA", "r": 8}
KINDS: dict[str, dict[str, Any]] = {
    "lora": LORA,
    "dora": DORA,
    "pissa": PISSA,
    "pissa with random vectors": LORA | {"init_lora_weights": "pissa_niter_4"},
    "olora": LORA | {"init_lora_weights": "olora"},
    "vera": VERA,
    "ia3": {"peft_type": "IA3", "feedforward_modules": []},
    "loha": {"peft_type": "LOHA", "r": 4},
    "oft": {"peft_type": "OFT", "oft_block_size": 16, "r": 0},
    "vblora": {"peft_type": "VBLORA", "vector_length": 16, "num_vectors": 32},
    "lily, which cannot merge": {"peft_type": "LILY", "r": 4},
}


def zero_shot(method: Method) -> Tensor:
    return pretrained_logits(method, images(method), method.classnames)


def batch_of(method: Method) -> Any:
    size = method.backbone.spec.image_size
    pixels = torch.randint(0, 256, (3, 3, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return SimpleNamespace(image=pixels, label=torch.tensor([0, 1, 2]))


@pytest.mark.parametrize("kind", KINDS)
def test_learned_saved_and_loaded_gives_the_same_logits(
    make: Callable[..., Peft], small: str, tmp_path: Path, kind: str
) -> None:
    """Also where initialisation changes the weight itself (pissa, olora), and where layers share what they learn."""
    torch.manual_seed(0)
    method = make(Peft, config=KINDS[kind], train=[QV])
    before = scores(method)
    expected = scores(learn(method, 0.05))
    assert float((expected - before).abs().max()) > 1e-3
    assert sum(tensor.numel() for tensor in method.trainable.values()) == method.num_trainable()
    path = tmp_path / "learned.safetensors"
    size = method.save(path)
    assert size < 4 * method.num_trainable() + 200 * len(method.trainable) + 4_000
    backbone = load_backbone(small)
    assert backbone.compute_hash() == backbone.hash
    assert all(type(part) is nn.Linear for name, part in backbone.named_modules() if name.endswith("attn.q_proj"))
    torch.manual_seed(1)
    again = Method.load(path)
    assert torch.equal(scores(again), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_merged_logits_equal_unmerged(make: Callable[..., Peft], small: str, kind: str) -> None:
    method = learn(make(Peft, config=KINDS[kind], train=[QV]))
    apart = scores(method)
    with method.backbone.merged():
        stand_ins = [type(method.backbone.get_submodule(name)) is nn.Linear for name in method.backbone.replaced]
        together = scores(method)
    assert set(stand_ins) == {"cannot merge" not in kind}
    assert method.backbone.can_hold(method.trainable.values()) == all(stand_ins)
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)
    assert torch.equal(scores(method), apart)
    backbone = load_backbone(small)
    assert backbone.compute_hash() == backbone.hash


@pytest.mark.parametrize("kind", ["lora", "dora", "pissa", "olora", "vera", "ia3", "loha", "oft"])
def test_untrained_it_is_zero_shot(make: Callable[..., Peft], kind: str) -> None:
    method = make(Peft, config=KINDS[kind], train=[QV])
    before = scores(method)
    torch.testing.assert_close(before, zero_shot(method), rtol=1e-4, atol=1e-4)


def test_lora_of_peft_computes_what_our_lora_computes(make: Callable[..., Method]) -> None:
    theirs = learn(make(Peft, config=LORA, train=[QV]))
    expected = scores(theirs)
    learned = {name: tensor.clone() for name, tensor in theirs.adapter_state_dict().items()}
    ours = make(LoRA, train=[QV], rank=4, alpha=8.0, scaling="plain")
    renamed = {
        name.replace(".layer.lora_A.default.weight", ".A").replace(".layer.lora_B.default.weight", ".B"): tensor
        for name, tensor in learned.items()
    }
    ours.load_adapter_state_dict(renamed)
    torch.testing.assert_close(scores(ours), expected, rtol=1e-4, atol=1e-4)


def test_dora_is_its_formula(make: Callable[..., Peft]) -> None:
    """y = (m / |W + s B A|) (W + s B A) x + b, with the norm of every row."""
    method = learn(make(Peft, config=DORA, train=["text tower, block 0, mlp.fc"]))
    (module,), learned = method.backbone.replaced.values(), method.adapter_state_dict()
    a, b, m = (
        next(tensor for name, tensor in learned.items() if part in name).double() for part in ("_A.", "_B.", "_mag")
    )
    weight = method.backbone.pretrained_tensor("text.blocks.0.mlp.fc.weight").double() + 2 * b @ a
    weight = m[:, None] * weight / weight.norm(dim=1, keepdim=True)
    x = torch.randn(5, weight.shape[1], generator=torch.Generator().manual_seed(0))
    expected = x.double() @ weight.T + method.backbone.pretrained_tensor("text.blocks.0.mlp.fc.bias").double()
    torch.testing.assert_close(module(x).double(), expected, rtol=1e-5, atol=1e-5)


def test_pissa_changes_a_copy_of_the_weight_and_the_trained_part_is_its_principal_part(
    make: Callable[..., Peft],
) -> None:
    method = make(Peft, config=PISSA, train=["text tower, block 0, mlp.fc"])
    layer: Any = next(iter(method.backbone.replaced.values())).layer
    weight = method.backbone.pretrained_tensor("text.blocks.0.mlp.fc.weight").double()
    u, s, v = torch.linalg.svd(weight)
    principal = u[:, :4] @ s[:4].diag() @ v[:4]
    torch.testing.assert_close(layer.get_base_layer().weight.double(), weight - principal, rtol=0, atol=1e-5)


def test_projections_of_vera_are_shared_and_frozen(make: Callable[..., Peft]) -> None:
    method = make(Peft, config=VERA, train=[QV])
    layers: list[Any] = [module.layer for module in method.backbone.replaced.values()]
    assert len({id(layer.vera_A["default"]) for layer in layers}) == 1
    assert len({id(layer.vera_B["default"]) for layer in layers}) == 1
    assert all("vera_lambda" in name for name in method.trainable)


def test_initialisation_depends_on_the_train_seed_alone(make: Callable[..., Peft]) -> None:
    states, learned = [], []
    for number in range(2):
        torch.manual_seed(number)
        states.append(torch.get_rng_state())
        method = make(Peft, config=LORA, train=[QV])
        assert torch.equal(torch.get_rng_state(), states[-1])
        learned.append({name: tensor.clone() for name, tensor in method.adapter_state_dict().items()})
    assert all(torch.equal(tensor, learned[1][name]) for name, tensor in learned[0].items())


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_noise_depends_on_train_seed_and_step_alone(make: Callable[..., Peft], monkeypatch: pytest.MonkeyPatch) -> None:
    method = learn(make(Peft, config=LORA | {"lora_dropout": 0.5}, train=[QV])).train()
    run = SimpleNamespace(accumulate_grad_batches=2, global_step=0, log_every_n_steps=1)
    run.strategy = SimpleNamespace(root_device=torch.device("cpu"))
    monkeypatch.setattr(Peft, "trainer", run)

    def loss(seed: int, batch: int = 0) -> float:
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        value = method.training_step(batch_of(method), batch)
        assert torch.equal(torch.get_rng_state(), before)
        return float(value.detach())  # type: ignore[union-attr]

    first = loss(0)
    assert loss(1) == first
    accumulated = loss(0, batch=1)
    run.global_step = 1
    assert len({first, accumulated, loss(0)}) == 3


@pytest.mark.parametrize(("config", "random"), [(LORA, False), (LORA | {"lora_dropout": 0.5}, True)])
def test_it_says_whether_it_is_random(make: Callable[..., Peft], config: dict[str, Any], random: bool) -> None:
    method = make(Peft, config=config, train=[QV])
    assert all(module.stochastic == random for module in method.backbone.replaced.values())


def test_it_begins_from_what_another_run_learned_also_when_loaded(make: Callable[..., Method], tmp_path: Path) -> None:
    parent = learn(make(LoRA, train=["both towers, blocks all, attn.q_proj"], alpha=4.0), 0.2)
    expected = scores(parent)
    parent.save(tmp_path / "parent.safetensors")
    child = make(Peft, config=PISSA, train=[QV], start=str(tmp_path / "parent.safetensors"))
    torch.testing.assert_close(scores(child), expected, rtol=1e-4, atol=1e-4)
    after = scores(learn(child, 0.05))
    child.save(tmp_path / "child.safetensors")
    loaded = Method.load(tmp_path / "child.safetensors")
    assert torch.equal(scores(loaded), after)


def test_the_budget_of_adalora_shrinks(make: Callable[..., Peft], monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"peft_type": "ADALORA", "init_r": 4, "target_r": 1, "tinit": 1, "tfinal": 1, "total_step": 6}
    method = learn(make(Peft, config=config, train=[QV]))
    tensors = [tensor for name, tensor in method.trainable.items() if "lora_E" in name]
    before = sum(int((tensor != 0).sum()) for tensor in tensors)
    for number in range(1, 6):
        monkeypatch.setattr(Peft, "global_step", property(lambda self, number=number: number))
        for tensor in method.trainable.values():
            tensor.grad = torch.ones_like(tensor)
        method.on_train_batch_end(None, None, 0)
    assert sum(int((tensor != 0).sum()) for tensor in tensors) == len(tensors) * 1 < before


def test_the_count_of_the_recipe_on_vit_b_16() -> None:
    assert trained_by("peft_dora", "ViT-B-16/random")["trained_parameters"] == 491_520 + 12 * 2 * (768 + 512)


def test_without_the_library_one_sentence_says_what_to_install(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"needs the library peft.*pip install 'clipbench\[peft\]'"):
        Peft(backbone=small)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "LORRA"}, "unknown peft_type 'LORRA'; did you mean 'LORA'"),
        ({"peft_type": "LORA", "rang": 4}, "unknown setting of peft's LORA 'rang'"),
        ({"peft_type": "LORA", "target_modules": ["q"]}, "'target_modules' of peft's configuration.*`train`"),
        ({"peft_type": "PROMPT_TUNING"}, "PROMPT_TUNING does not work on Linears"),
        ({"peft_type": "LORA", "init_lora_weights": "eva"}, "'eva' looks at data"),
        ({"peft_type": "ADALORA"}, "peft refuses the configuration of ADALORA.*total_step"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_before_anything_is_loaded(
    small: str, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        Peft(backbone=small, config=config)


def test_a_setting_that_nothing_reads_is_refused(small: str) -> None:
    with pytest.raises(UnreadSetting, match=r"momentum=0\.9 .* adamw"):
        Peft(backbone=small, optimizer="adamw", momentum=0.9)


@pytest.mark.parametrize("config", [{"peft_type": "LORA", "r": 0}, {"peft_type": "POLY"}])
def test_what_peft_refuses_at_the_layers_is_one_sentence(make: Callable[..., Peft], config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"peft refuses the configuration of {config['peft_type']}"):
        make(Peft, config=config, train=[QV])


def test_the_configuration_is_in_the_weights_file_as_json(make: Callable[..., Peft]) -> None:
    assert json.loads(json.dumps(dict(make(Peft, config=DORA, train=[QV]).hparams)))["config"] == DORA
    assert issubclass(UnknownName, ConfigError)
