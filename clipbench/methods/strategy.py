"""What a method says and what it has at hand: what is trained, how features and logits arise, its losses, its backbone.

A method says what it trains (`build`), how class features and image features are made, its losses by name, and how many
numbers that trains (`trained_count`). How it is fitted and tested is the same for all (`base.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipbench.backbone.clip import Backbone, load_backbone
from clipbench.backbone.lending import Interpolable, Mergeable
from clipbench.backbone.prompts import PromptPlan
from clipbench.backbone.spec import require, resolve_spec
from clipbench.data.templates import fill
from clipbench.errors import ConfigError, MethodError
from clipbench.methods.schedule import OptimizerName, ScheduleName
from clipbench.methods.task import Task
from clipbench.randomness import torch_generator

T = TypeVar("T")


class Strategy(L.LightningModule):
    """A strategy to adapt the backbone.

    Args:
        backbone: which backbone (`clipbench list backbones`).
        template_set: the named set that the prompts come from.
        optimizer: sgd, adam or adamw.
        lr: learning rate after the warm-up.
        momentum: of sgd.
        weight_decay: on every trained tensor.
        schedule: cosine (per epoch, over the trainer's max_epochs), cosine_per_step (over all steps), or constant.
        warmup_epochs: epochs at the constant rate `warmup_lr`; not of cosine_per_step.
        warmup_lr: that rate.
        warmup_steps: steps of a linear warm-up; of cosine_per_step alone.
        final_lr: where cosine_per_step ends.

    Raises:
        BackboneError: the backbone lacks an ability that the method needs; before anything is loaded.
    """

    version: ClassVar[int] = 1
    """Raise it when a change moves this method's numbers."""
    needs: ClassVar[Mapping[str, set[str]]] = {}
    """Abilities that the towers must have: tower to names."""
    novel_rule: str = "own"
    """"own", or "frozen": zero-shot answers for classes that were not trained on."""
    made_of_start: ClassVar[bool] = False
    """Whether it trains nothing and is made of what its `start` learned."""
    starts_at_zero_shot: bool = True
    """Whether the untrained method has the logits of zero-shot with the same templates."""
    exempt: Mapping[str, str] = {}
    """Checks of the conformance suite that have no meaning here: name to reason."""
    strict_loading = False  # checkpoints hold what is trained and nothing else

    def __init__(
        self,
        backbone: str = "mini",
        template_set: str = "coop",
        optimizer: OptimizerName = "sgd",
        lr: float = 0.002,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        schedule: ScheduleName = "cosine",
        warmup_epochs: int = 1,
        warmup_lr: float = 1e-5,
        warmup_steps: int = 0,
        final_lr: float = 0.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if lr <= 0 or min(warmup_lr, warmup_epochs, warmup_steps, final_lr) < 0:
            told = f"{lr=}, {warmup_lr=}, {warmup_epochs=}, {warmup_steps=}, {final_lr=}"
            raise ConfigError(f"lr must be above 0, warm-up and final rate not below: {told}")
        require(resolve_spec(backbone), self.needs, type(self).__name__)
        self.backbone_name = backbone
        self.template_set = template_set
        self.optimizer_name: OptimizerName = optimizer
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        self.schedule: ScheduleName = schedule
        self.warmup_epochs, self.warmup_lr = warmup_epochs, warmup_lr
        self.warmup_steps, self.final_lr = warmup_steps, final_lr
        self.task: Task
        self.templates: tuple[str, ...] = ("a photo of a {}.",)
        self.train_seed = 1
        self.trained: dict[str, nn.Parameter] | None = None
        self.correct: dict[str, list[Tensor]] = {}
        self.last_losses: dict[str, Tensor] = {}
        self.findings: dict[str, Any] = {}
        self.active_entries: int | None = None
        self.start_tensors: dict[str, Tensor] = {}
        self._at_start: dict[str, Tensor] = {}
        self._remembered: dict[Any, Any] = {}

    # What a method says

    def build(self) -> dict[str, nn.Parameter]:
        """Attach what is trained to the backbone (`backbone.lend`) or to self; return it by name."""
        raise NotImplementedError

    def trained_count(self) -> int:
        """How many numbers are trained, from the method's formula."""
        raise NotImplementedError

    def class_features(self, classnames: Sequence[str]) -> Tensor:
        """Features of any list of classes, (C, D), any length."""
        raise NotImplementedError

    def image_features(self, images: Tensor) -> Tensor:
        """Features of normalised images (B, 3, H, W): (B, D), any length."""
        return self.backbone.encode_image(images)

    def logits(self, images: Tensor, classes: Tensor) -> Tensor:
        """Logits (B, C) in float32 of normalised images for the classes' features (C, D)."""
        return self.backbone.logits(self.image_features(images), classes)

    def losses(self, logits: Tensor, labels: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """The terms of the loss by name; their sum is minimised."""
        return {"cross_entropy": F.cross_entropy(logits, labels)}

    def param_groups(self) -> list[dict[str, Any]]:
        """Parameter groups; a group's `lr_factor` multiplies the learning rate."""
        return [{"params": list(self.built().values())}]

    def learned(self) -> dict[str, Tensor]:
        """What the deliverable stores, by name; by default the trained tensors."""
        return {name: tensor.detach() for name, tensor in self.built().items()}

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `learned`: put what a deliverable stores into the method, which is freshly built.

        Raises:
            MethodError: the tensors do not fit.
        """
        trained = self.built()
        self.refuse_other_shapes(tensors, {name: tuple(tensor.shape) for name, tensor in trained.items()})
        with torch.no_grad():
            for name, tensor in tensors.items():
                trained[name].copy_(tensor)
        self.forget()

    def interpolate(self, alpha: float) -> None:
        """Go back from what was learned towards where it began: (1 - alpha) start + alpha now.

        By default in every trained tensor; a module that was swapped into the backbone may know better by an
        `interpolate` of its own. Source: Wortsman et al., CVPR 2022 (arXiv 2109.01903), weight interpolation.
        """
        wise = [module for _, module in self.backbone.swapped() if isinstance(module, Interpolable)]
        theirs = {id(parameter) for module in wise for parameter in module.parameters()}
        for module in wise:
            module.interpolate(alpha)
        with torch.no_grad():
            for name, parameter in self.built().items():
                if id(parameter) not in theirs:  # with a `start` the way back is to the pretrained value
                    origin = self.backbone.pristine(name) if name in self.start_tensors else self._at_start[name]
                    parameter.lerp_(origin.to(parameter), 1 - alpha)
            back = {
                name: torch.lerp(self.backbone.pristine(name), value.to(self.device), alpha)
                for name, value in self.start_tensors.items()
                if name not in self.built()
            }
        self.backbone.overwrite(back)
        self.forget()

    def lies_in_the_weights(self) -> bool:
        """Whether all that was learned can be written into the backbone's tensors (prompts and adapters cannot)."""
        apart = [module for _, module in self.backbone.swapped() if not isinstance(module, Mergeable)]
        apart_from_it = {id(parameter) for module in apart for parameter in module.parameters()}
        inside = {id(parameter) for parameter in self.backbone.parameters()} - apart_from_it
        return all(id(parameter) in inside for parameter in self.built().values())

    def active_count(self) -> int:
        """How many numbers are still trained at the end; fewer than in `built` where some were frozen on the way."""
        if self.active_entries is not None:
            return self.active_entries
        return sum(parameter.numel() for parameter in self.built().values() if parameter.requires_grad)

    # What it has at hand

    def train_generator(self, purpose: str) -> torch.Generator:
        """A generator for initialisation, keyed by the train seed and the purpose."""
        return torch_generator(self.train_seed, purpose)

    def total_steps(self) -> int:
        """Optimiser steps of the whole fit, as the trainer plans them.

        Raises:
            ConfigError: the trainer has no end.
        """
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps) or steps < 1:
            raise ConfigError("the schedule needs an end: give trainer.max_epochs or trainer.max_steps")
        return int(steps)

    def step_of_noise(self, batch_idx: int) -> tuple[int, ...]:
        """What the noise of a batch depends on: steps done, and which batch of the step it is, beyond the first."""
        batch = batch_idx % self.trainer.accumulate_grad_batches
        return (self.global_step, batch) if batch else (self.global_step,)

    def bind(self, task: Task, templates: Sequence[str], train_seed: int) -> None:
        """Take over a protocol's task, the templates of the dataset and the seed of everything but the draw."""
        self.task, self.templates, self.train_seed = task, tuple(templates), train_seed

    def encode_prompts(self, classnames: Sequence[str]) -> Tensor:
        """The text tower as it is now on the filled templates, (C, D); several templates: mean of unit features."""
        features = self.backbone.encode_text(self.prompts(classnames))
        return self._over_templates(features, len(classnames))

    def zero_shot_features(self, classnames: Sequence[str]) -> Tensor:
        """The same from the untouched backbone, without gradient; computed once per class list."""
        names = tuple(classnames)
        return self.remember(
            ("zero shot", names, self.templates, self.device),
            lambda: self._over_templates(self.backbone.frozen_text_features(self.prompts(names)), len(names)),
        )

    def prompts(self, classnames: Sequence[str]) -> PromptPlan:
        """The plan of all filled templates, class by class, template by template inside a class."""
        names = tuple(classnames)

        def plan() -> PromptPlan:
            texts = [fill(template, name) for name in names for template in self.templates]
            return PromptPlan(self.backbone.tokenize(texts))

        return self.remember(("prompts", names, self.templates), plan)

    def remember(self, key: Any, make: Callable[[], T]) -> T:
        """The value of `key`, made on first use; forgotten when the method is released."""
        if key not in self._remembered:
            self._remembered[key] = make()
        return self._remembered[key]

    def forget(self) -> None:
        """Forget what was remembered; to be called when the backbone, or what of it is trained, has changed."""
        self._remembered.clear()

    def _over_templates(self, features: Tensor, classes: int) -> Tensor:
        if len(self.templates) == 1:
            return features
        return F.normalize(features, dim=-1).unflatten(0, (classes, len(self.templates))).mean(dim=1)

    # The life of a method

    def configure_model(self) -> None:
        """Take the shared backbone and build; once.

        Raises:
            MethodError: another method has not released the backbone.
        """
        if self.trained is None:
            backbone = load_backbone(self.backbone_name)
            if any(parameter.requires_grad for parameter in backbone.parameters()):
                raise MethodError(
                    f"backbone '{self.backbone_name}' is still held by another method; call its release()"
                )
            self.adopt(backbone)

    def adopt(self, backbone: Backbone) -> None:
        """Build on a backbone that is at hand and free."""
        self.backbone: Backbone = backbone
        self.start_tensors = self.start_weights()
        self.backbone.overwrite(self.start_tensors)
        self.trained = self.build()
        self._at_start = {name: tensor.detach().clone() for name, tensor in self.trained.items()}

    def start_weights(self) -> dict[str, Tensor]:
        """Values that tensors of the backbone get before anything is built; by default none."""
        return {}

    def begin_from(self, tensors: Mapping[str, Tensor]) -> None:
        """Put the start weights of a deliverable into the backbone."""
        self.start_tensors = dict(tensors)
        self.backbone.overwrite(self.start_tensors)
        self.forget()

    @classmethod
    def loading_arguments(cls, init_args: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of the method that a deliverable is loaded into; by default those in its header."""
        return dict(init_args)

    def built(self) -> dict[str, nn.Parameter]:
        """What is trained, by name.

        Raises:
            MethodError: the method has not been built (`configure_model`).
        """
        if self.trained is None:
            raise MethodError(f"{type(self).__name__} has not been built yet; call configure_model() first")
        return self.trained

    def release(self) -> None:
        """Give the shared backbone back as it was loaded."""
        if hasattr(self, "backbone"):  # also where `build` failed half-way
            self.backbone.restore()
            del self.backbone
        self.trained = None
        self._at_start, self.start_tensors = {}, {}
        self._remembered.clear()

    def refuse_other_shapes(self, tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
        """Raise MethodError where stored tensors are not of the expected names and shapes."""
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if found != expected:
            odd = sorted(set(found.items()) ^ set(expected.items()))[:4]
            raise MethodError(f"the stored tensors do not fit {type(self).__name__}: {odd}")
