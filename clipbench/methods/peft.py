"""Any configuration of the peft library as the method (DoRA, VeRA, PiSSA, OFT ...), on the same Linears as `LoRA`.

The layers are peft's own (huggingface/peft), put around copies of the selected Linears and into the places of these. So
the formula is that of the configuration's paper; the loss is cross-entropy, distillation optional. What is ours [ours]:

- Which Linears is said by `train`, never by the configuration (`target_modules` and its kin are refused).
- Initialisation depends on the train seed alone, noise in training on the train seed and the step.
- What is stored is what is trained. Where peft's initialisation changes the frozen weight as well (PiSSA, OLoRA),
  building anew repeats that from the same seed and weight.
- WiSE-FT interpolates peft's tensors, which for products of two of them is not the line between the two weights; with
  a `start` that changed the same Linears it is refused.
- AdaLoRA's budget is updated, its orthogonality penalty is not part of the loss; initialisations that look at data
  (EVA, CorDA) are refused.

Not for Linears: prompt and prefix tuning, Poly, X-LoRA.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from clipbench.errors import ConfigError, UnknownName
from clipbench.methods.base import Method
from clipbench.randomness import key
from clipbench.tuning.distillation import Distillation
from clipbench.tuning.linears import NO_BATCHNORM, WrappedLinears
from clipbench.tuning.optimisation import step_of
from clipbench.tuning.selection import needs_of

OURS = (
    *("target_modules", "exclude_modules", "modules_to_save", "target_parameters", "trainable_token_indices"),
    *("layers_to_transform", "layers_pattern", "layer_replication", "inference_mode", "task_type"),
)
LOOK_AT_DATA = ("eva", "corda", "lora_ga")


class PeftLinear(nn.Module):
    """A layer of peft in the place of a Linear.

    Args:
        layer: peft's.
        stochastic: whether it draws noise in training.
    """

    def __init__(self, layer: nn.Module, stochastic: bool) -> None:
        super().__init__()
        self.layer, self.stochastic = layer, stochastic

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return cast(Tensor, self.layer(x))


class MergeablePeftLinear(PeftLinear):
    """One that peft can write into the weight."""

    def merged(self) -> nn.Linear:
        """A plain Linear with the layer's outputs; merged in a copy, since peft merges in place."""
        layer: Any = copy.deepcopy(self.layer)
        layer.merge()
        linear = layer.get_base_layer()
        out = nn.Linear(linear.in_features, linear.out_features, linear.bias is not None, "meta", linear.weight.dtype)
        out.weight = nn.Parameter(linear.weight.detach())
        if linear.bias is not None:
            out.bias = nn.Parameter(linear.bias.detach())
        return out


class Peft(Method):
    """A tuner of the peft library.

    Args:
        train: the Linears that peft's layers stand in for, as sentences (`tuning/selection.py`).
        config: peft's configuration: `peft_type` and its settings; None: DoRA.
        distillation_weight: weight of the distillation from the class features before training; 0: none.
        shared: the arguments of `Method`.

    Raises:
        ConfigError: peft is not installed, or does not take the configuration.
    """

    def __init__(
        self,
        train: Sequence[str] = ("both towers, blocks all, attn.q_proj and attn.v_proj",),
        config: dict[str, Any] | None = None,
        distillation_weight: float = 0.0,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.linears = WrappedLinears(train)
        self.config = dict(config or {"peft_type": "LORA", "use_dora": True})
        self._peft_config(["any"])
        self.distillation = Distillation(distillation_weight)
        self._count = 0
        self._budgets: list[Any] = []
        if "image" in self.requires():
            self.exempt = NO_BATCHNORM

    def requires(self) -> Mapping[str, set[str]]:
        """What the selection needs."""
        return needs_of(self.hparams_initial["train"])

    def _peft_config(self, targets: list[str]) -> Any:
        """The configuration as peft's object."""
        try:
            from peft import mapping
        except ImportError as error:
            raise ConfigError(
                "method Peft needs the library peft, which is not installed: pip install 'clipbench[peft]'"
            ) from error
        settings = dict(self.config)
        name = str(settings.pop("peft_type", "LORA")).upper()
        types: dict[str, Any] = {kind.value: config for kind, config in mapping.PEFT_TYPE_TO_CONFIG_MAPPING.items()}
        if name not in types:
            raise UnknownName("peft_type", name, types)
        known = {field.name for field in dataclasses.fields(types[name])}
        if "target_modules" not in known:
            raise ConfigError(f"peft_type {name} does not work on Linears, so it cannot be a method here")
        for setting in settings:
            if setting in OURS:
                raise ConfigError(f"'{setting}' of peft's configuration is not for you to set here: say it in `train`")
            if setting not in known:
                raise UnknownName(f"setting of peft's {name}", setting, known - {*OURS, "peft_type"})
        if settings.get("init_lora_weights") in LOOK_AT_DATA:
            raise ConfigError(f"init_lora_weights '{settings['init_lora_weights']}' looks at data before training")
        with _as_config_error(name):
            return types[name](target_modules=targets, **settings)

    def build(self) -> dict[str, nn.Parameter]:
        """Let peft put its layers around copies of all selected Linears at once, then put these into the view."""
        import peft

        linears = self.linears.select(self.backbone)
        tree = _tree_of_copies(linears)
        config = self._peft_config(list(linears))
        with _as_config_error(config.peft_type.value), _seeded(key(self.train_seed, "peft initialisation")):
            model: Any = peft.get_peft_model(cast(Any, tree), config)
            layers = {name: tree.get_submodule(name) for name in linears}
            random, mergeable = _is_random(layers), _can_merge(layers)
        self._count = model.get_nb_trainable_parameters()[0]
        tuner = model.base_model
        self._budgets = [tuner] if hasattr(tuner, "update_and_allocate") else []  # in a list: no module of ours
        kind = MergeablePeftLinear if mergeable else PeftLinear
        return self.linears.replace(
            self.backbone, lambda name, linear: kind(layers[name], random).train(linear.training)
        )

    def num_trainable(self) -> int:
        """What peft itself counts."""
        return self._count

    def losses(self, logits: Tensor, labels: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """Cross-entropy, and the distillation where it has a weight."""
        terms = super().losses(logits, labels, classes)
        return terms | self.distillation.terms(classes, self.prompts, self.classnames)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        """A step under noise that depends on seed, step and batch: peft draws from torch's global generator."""
        with _seeded(key(self.train_seed, "peft noise", *step_of(self.trainer, batch_idx)), self.device):
            return super().training_step(batch, batch_idx)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Let a method with a budget (AdaLoRA) move it, while the gradients are there."""
        for tuner in self._budgets:
            tuner.update_and_allocate(self.global_step)


def _tree_of_copies(linears: Mapping[str, nn.Linear]) -> nn.Module:
    """A module with frozen copies of the Linears under their names."""
    root = nn.ModuleDict()
    for name, linear in linears.items():
        node, *path = root, *name.split(".")
        for part in path[:-1]:
            if part not in node:
                node[part] = nn.ModuleDict()
            node = cast(nn.ModuleDict, node[part])
        node[path[-1]] = copy.deepcopy(linear).requires_grad_(False)
    return root


@torch.no_grad()
def _is_random(layers: Mapping[str, nn.Module]) -> bool:
    """Whether a layer draws from torch's generator in training; tries every layer out on the way."""
    before = torch.get_rng_state()
    for layer in layers.values():
        weight = cast(Any, layer).get_base_layer().weight
        layer.train()(torch.zeros(1, weight.shape[1], dtype=weight.dtype, device=weight.device))
        layer.eval()
    return not torch.equal(before, torch.get_rng_state())


def _can_merge(layers: Mapping[str, nn.Module]) -> bool:
    try:
        MergeablePeftLinear(next(iter(layers.values())), False).merged()
    except (NotImplementedError, AttributeError, ValueError):
        return False
    return True


@contextmanager
def _as_config_error(name: str) -> Iterator[None]:
    """What peft refuses is a user's mistake."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        shown = " ".join(str(error).split())
        raise ConfigError(f"peft refuses the configuration of {name}: {type(error).__name__}: {shown}") from error


@contextmanager
def _seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Within this context torch's global generators are seeded; afterwards they are as before."""
    on_cuda = device is not None and device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        torch.random.default_generator.manual_seed(seed)
        if on_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
