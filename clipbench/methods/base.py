"""The base of all methods: a LightningModule around the frozen backbone.

A method says what it trains (`build`), how class features and image features are made, its losses by name, and how many
numbers that trains (`trained_count`). This class owns the rest: optimiser, schedule, metrics, progress, checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics.classification import MulticlassAccuracy

from clipbench.backbone.clip import Backbone, load_backbone
from clipbench.backbone.lending import Interpolable, Mergeable
from clipbench.backbone.prompts import PromptPlan
from clipbench.backbone.spec import require, resolve_spec
from clipbench.errors import ConfigError, MethodError
from clipbench.methods.schedule import (
    OptimizerName,
    ScheduleName,
    learning_rate,
    learning_rate_of_step,
    make_optimizer,
)
from clipbench.methods.task import Task, TestSplit
from clipbench.randomness import torch_generator

T = TypeVar("T")


class Method(L.LightningModule):
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
        self._refuse_other_shapes(tensors, {name: tuple(tensor.shape) for name, tensor in trained.items()})
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
                if id(parameter) not in theirs:
                    parameter.lerp_(self._at_start[name].to(parameter), 1 - alpha)
            back = {
                name: torch.lerp(self.backbone.pristine(name), value.to(self.device), alpha)
                for name, value in self.start_tensors.items()
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
            texts = [t.format(name.replace("_", " ")) for name in names for t in self.templates]
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

    def configure_optimizers(self) -> Any:
        """The optimiser over what is trained, its learning rate set once per epoch, or once per step."""
        if not self.built():
            return None
        groups = self.param_groups()
        factors = [group.pop("lr_factor", 1.0) for group in groups]
        optimizer = make_optimizer(self.optimizer_name, groups, self.lr, self.momentum, self.weight_decay)
        rate = self._rate_of_step() if self.schedule == "cosine_per_step" else self._rate_of_epoch()

        def share_of_lr(factor: float) -> Callable[[int], float]:
            return lambda now: factor * rate(now) / self.lr

        scheduler = LambdaLR(optimizer, [share_of_lr(factor) for factor in factors])
        interval = "step" if self.schedule == "cosine_per_step" else "epoch"
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": interval}}

    def _rate_of_step(self) -> Callable[[int], float]:
        steps = self.total_steps()
        return lambda step: learning_rate_of_step(step, steps, self.lr, self.warmup_steps, self.final_lr)

    def _rate_of_epoch(self) -> Callable[[int], float]:
        epochs = self.trainer.max_epochs
        if epochs is None or epochs < 1:
            raise ConfigError(f"trainer.max_epochs must be 1 or more, the schedule spans it; it is {epochs}")
        return lambda epoch: learning_rate(epoch, epochs, self.lr, self.warmup_epochs, self.warmup_lr, self.schedule)

    # Training, validation, test

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        """One step: logits of the batch for the trained classes, the sum of the losses."""
        if not self.built():
            return None
        classes = self.class_features(self.task.train)
        logits = self.logits(self.backbone.normalise(batch.image), classes)
        terms = self.losses(logits, batch.label, classes)
        total = torch.stack([term.float() for term in terms.values()]).sum()
        self.last_losses = {name: term.detach() for name, term in (terms | {"total": total}).items()}
        if not torch.isfinite(total):
            raise MethodError(self._not_finite(terms, logits))
        self.log_dict(
            {f"train/{name}": term for name, term in self.last_losses.items()},
            prog_bar=True, on_step=True, on_epoch=False, batch_size=len(batch.label),
        )  # fmt: skip
        return total

    def _not_finite(self, terms: dict[str, Tensor], logits: Tensor) -> str:
        shown = ", ".join(f"{name} {term.item():g}" for name, term in terms.items())
        tensors = {"logits": logits, **self.built()}
        bad = next((name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()), "none but the loss")
        return (
            f"the loss of {type(self).__name__} is not finite at step {self.global_step} ({shown}); first tensor: {bad}"
        )

    def on_validation_start(self) -> None:
        """Prepare the classes that are validated on: those trained on."""
        split = TestSplit("val", self.task.train, trained=True)
        self._classes = [self.prepare(split)]
        self.val_accuracy = self._metric(split)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Accuracy on the few-shot val draw of the trained classes."""
        logits = self.logits(self.backbone.normalise(batch.image), self._classes[0])
        self.val_accuracy.update(logits, batch.label)

    def on_validation_epoch_end(self) -> None:
        """Log the val accuracy, if there was a val draw."""
        if self.val_accuracy.update_called:
            self.log("val/accuracy", self.val_accuracy.compute(), prog_bar=True)

    def on_test_start(self) -> None:
        """Write what was learned into plain Linears where that can be done; encode the classes of every split, once."""
        self.backbone.merge()
        self._classes = [self.prepare(split) for split in self.task.tests]
        self.test_accuracy = {split.name: self._metric(split) for split in self.task.tests}
        self.correct = {split.name: [] for split in self.task.tests}

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Which images of the batch are classified rightly among the classes of their split."""
        split = self.task.tests[dataloader_idx]
        logits = self.split_logits(self.backbone.normalise(batch.image), split, self._classes[dataloader_idx])
        self.test_accuracy[split.name].update(logits, batch.label)
        self.correct[split.name].append((logits.argmax(dim=-1) == batch.label).cpu())

    def on_test_epoch_end(self) -> None:
        """Log the accuracy of every split, in [0, 1]."""
        for name, metric in self.test_accuracy.items():
            self.log(f"test/{name}", metric.compute())

    def on_test_end(self) -> None:
        """Take the merged Linears out again."""
        self.backbone.unmerge()

    def prepare(self, split: TestSplit) -> Tensor:
        """The class features (C, D) that a test split is scored with; zero-shot's where the novel rule is frozen."""
        with torch.no_grad():
            if self.uses_frozen(split):
                return self.zero_shot_features(split.classnames)
            return self.class_features(split.classnames)

    def uses_frozen(self, split: TestSplit) -> bool:
        """Whether zero-shot answers for the split."""
        return self.novel_rule == "frozen" and not split.trained

    def split_logits(self, images: Tensor, split: TestSplit, classes: Tensor) -> Tensor:
        """Logits (B, C) of normalised images for the prepared classes of a split."""
        if self.uses_frozen(split):
            with self.backbone.pristine_tensors():
                return self.backbone.logits(self.backbone.encode_image(images), classes)
        return self.logits(images, classes)

    def _metric(self, split: TestSplit) -> MulticlassAccuracy:
        # one class alone is a degenerate task that torchmetrics refuses
        classes = max(2, len(split.classnames))
        return MulticlassAccuracy(num_classes=classes, average="micro").to(self.device)

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what is trained; the backbone is never stored."""
        shapes = self._trained_shapes()
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in shapes}
        checkpoint["clipbench"] = self._identity()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another method or backbone.

        Raises:
            MethodError: it is one, or its tensors do not fit.
        """
        stored = checkpoint.get("clipbench") or {}
        for what, ours in self._identity().items():
            if stored.get(what) != ours:
                raise MethodError(f"the checkpoint belongs to {what} '{stored.get(what)}', not to '{ours}'")
        self._refuse_other_shapes(checkpoint["state_dict"], self._trained_shapes())

    def _refuse_other_shapes(self, tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if found != expected:
            odd = sorted(set(found.items()) ^ set(expected.items()))[:4]
            raise MethodError(f"the stored tensors do not fit {type(self).__name__}: {odd}")

    def _identity(self) -> dict[str, str]:
        return {"method": type(self).__name__, "backbone hash": self.backbone.hash}

    def _trained_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of what is trained, by its name in the state dict."""
        trained = {id(parameter) for parameter in self.built().values()}
        return {
            name: tuple(parameter.shape)
            for name, parameter in self.named_parameters(remove_duplicate=False)
            if id(parameter) in trained
        }
