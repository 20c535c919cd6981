"""The base of all methods: an ordinary LightningModule around a view of a frozen CLIP.

An author writes what is below "What an author says", in the order of the paper's method section; the defaults are those
of zero-shot CLIP. At hand, once set up: `self.backbone`, a view to `unfreeze`, `replace_linear` and `parametrize` (its
`pretrained` is the frozen twin); `self.prompts`, class features from prompts, now and pretrained; `self.classnames`
(trained on), `train_seed`, `trainable`, `optimisation`, `diagnostics` (goes into the record). Parts to hold stand in
`tuning/`: distillation, wrapped Linears, masks, context.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipbench.backbone.clip import Backbone, load_backbone
from clipbench.backbone.spec import require, resolve_spec
from clipbench.backbone.view import BackboneView, state_of
from clipbench.data.pictures import as_pixels
from clipbench.data.task import Task
from clipbench.data.templates import templates_for_task
from clipbench.errors import ConfigError, MethodError, UnknownName
from clipbench.methods.arguments import settings_of
from clipbench.methods.evaluation import Evaluation, evaluating, labelled, name_of, not_finite, split_of, summed, task_of
from clipbench.methods.weights_file import Header, Learned, read_learned, restored
from clipbench.tuning.class_prompts import ClassPrompts
from clipbench.tuning.learned_weights import LearnedWeights, refuse_other_shapes
from clipbench.tuning.optimisation import Optimisation, OptimizerName
from clipbench.tuning.schedule import ScheduleName


class Method(L.LightningModule):
    """A way to adapt CLIP.

    Args:
        backbone: name of the backbone (`clipbench list backbones`).
        template_set: the named set of templates that prompts are made from.
        start: file of learned weights to start from (in a bench also a recipe, which runs first); None: pretrained ones.
        optimizer: "sgd", "adam" or "adamw".
        lr: learning rate after the warm-up; None: 0.002.
        momentum: of sgd alone; None: 0.9.
        weight_decay: on every trained tensor.
        schedule: "cosine" (per epoch, over all epochs), "cosine_per_step" (over all steps) or "constant".
        warmup_epochs: epochs at the rate `warmup_lr`; not of cosine_per_step; None: 1.
        warmup_lr: that rate; None: 1e-5.
        warmup_steps: steps of a linear warm-up, of cosine_per_step alone; None: 0.
        final_lr: the rate at which cosine_per_step ends; None: 0.

    Raises:
        ConfigError: an impossible setting, or one that nothing reads.
        BackboneError: the backbone lacks an ability that the method requires.
    """

    version: ClassVar[int] = 1  # raised when a change moves this method's numbers
    novel_rule: str = "own"  # "frozen": zero-shot answers for classes that were not trained on
    class_bound: tuple[str, ...] = ()  # trained tensors with a row for each trained class, without meaning for others
    starts_at_zero_shot: bool = True  # whether, untrained and without a start, its logits are zero-shot's
    has_optimizer: ClassVar[bool] = True  # whether it is trained by gradient steps, and so takes optimiser settings
    derived: ClassVar[bool] = False  # whether it trains nothing and is computed from what its `start` learned
    interpolates: ClassVar[bool] = True  # whether there is a way back to the pretrained model (WiSE-FT)
    lower_case_names: ClassVar[bool] = False  # whether class names stand in lower case in its prompts
    exempt: Mapping[str, str] = {}  # checks of the conformance suite that have no meaning here: name to reason
    backbone: BackboneView
    prompts: ClassPrompts

    def __init__(
        self, backbone: str = "mini", template_set: str = "coop", start: str | None = None,
        optimizer: OptimizerName = "sgd", lr: float | None = None, momentum: float | None = None,
        weight_decay: float = 5e-4, schedule: ScheduleName = "cosine", warmup_epochs: int | None = None,
        warmup_lr: float | None = None, warmup_steps: int | None = None, final_lr: float | None = None, **unknown: Any,
    ) -> None:  # fmt: skip
        for name in unknown:
            raise UnknownName(f"setting of {type(self).__name__}", name, settings_of(type(self)))
        super().__init__()
        self.save_hyperparameters()
        for name in set(self.hparams) - set(settings_of(type(self))):
            del self.hparams[name]
        spec = resolve_spec(backbone)
        require(spec, self.requires(), type(self).__name__)
        self.backbone_name, self.preprocessing = backbone, spec.preprocessing
        self.template_set, self.start = template_set, start
        if self.has_optimizer:
            rates = (warmup_epochs, warmup_lr, warmup_steps, final_lr)
            self.optimisation = Optimisation(optimizer, lr, momentum, weight_decay, schedule, *rates)
        self.task: Task | None = None  # what it is set up for now
        self.header: Header | None = None  # what it was trained for, or would be
        self.has_learned, self.train_seed = False, 1
        self.classnames: tuple[str, ...] = ()  # trained on
        self.templates: tuple[str, ...] = ()
        self.trainable: dict[str, nn.Parameter] = {}
        self.weights, self.evaluation = LearnedWeights(), Evaluation()
        self.diagnostics: dict[str, Any] = {}
        self.last_losses: dict[str, Tensor] = {}

    # What an author says

    def requires(self) -> Mapping[str, set[str]]:
        """Abilities of towers ("image", "text"), see `backbone/spec.py`; asked early, so it reads `self.hparams`."""
        return {}

    def build(self) -> dict[str, nn.Parameter]:
        """Put what is trained into the view, or make it an attribute of self; returns it by name."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it trains: it needs a method build()")

    def num_trainable(self) -> int:
        """How many numbers are trained, from the method's formula."""
        raise NotImplementedError(f"{type(self).__name__} does not say how many numbers it trains: num_trainable()")

    def class_features(self, classnames: Sequence[str]) -> Tensor:
        """Features (C, D) of any list of classes, of any length."""
        return self.prompts.features(classnames)

    def image_features(self, images: Tensor) -> Tensor:
        """Features (B, D) of normalised images (B, 3, H, W), of any length."""
        return self.backbone.encode_image(images)

    def logits(self, images: Tensor, classes: Tensor) -> Tensor:
        """Logits (B, C) in float32 of normalised images for the classes' features (C, D)."""
        return self.backbone.logits(self.image_features(images), classes)

    def losses(self, logits: Tensor, labels: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """The terms of the loss by name; their sum is minimised."""
        return {"cross_entropy": F.cross_entropy(logits, labels)}

    def adapter_state_dict(self) -> dict[str, Tensor]:
        """What is stored of what was learned, by name: by default the trained tensors."""
        return self.weights.state()

    def load_adapter_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `adapter_state_dict`, once set up; MethodError where the tensors do not fit."""
        self.weights.load(tensors)

    # What it is set up for

    def setup(
        self, stage: str | None = None, *, task: Task | None = None, train_seed: int = 1,
        learned: Learned | None = None, backbone: Backbone | None = None,
    ) -> None:  # fmt: skip
        """Take over class names from the trainer's data module, and build what is trained where it is not there yet.

        Args:
            stage: Lightning's; "fit" puts what is trained into train mode.
            task: instead of the data module's; with it `train_seed`, of initialisation and noise.
            train_seed: see `task`.
            learned: what was learned before: it says the task, and is put in place.
            backbone: instead of the one of that name, for example one without weights.

        Raises:
            ConfigError: there is no data module, or there are several devices.
            MethodError: what was learned is another's, or bound to other classes.
        """
        name, fits = type(self).__name__, stage == "fit"
        if learned is not None:
            learned.header.refuse_other(name, self.backbone_name, load_backbone(self.backbone_name).hash)
            task, train_seed, self.header, self.has_learned = learned.header.task, learned.header.train_seed, None, False
        elif task is None:
            task, train_seed = task_of(self._trainer) or (self.task, self.train_seed)
        if task is None:
            raise ConfigError(f"{name} does not know its classes: give a data module of clipbench, or setup(task=...)")
        if self.has_learned and fits and self.class_bound and self.classnames != task.train:
            raise MethodError(f"{name} has learned '{self.class_bound[0]}' for other classes than '{task.dataset}' has")
        stale = self.header is None or (self.classnames, self.train_seed) != (task.train, train_seed)
        templates = learned.header.templates if learned else templates_for_task(self.template_set, task)
        self.task, self.templates = task, tuple(templates)
        if fits or not self.has_learned:
            self.classnames = task.train
        if stale and not self.has_learned:
            self.train_seed = train_seed
            self._build(backbone or load_backbone(self.backbone_name), learned)
        self.prompts.templates = self.templates
        self.evaluation.begin(task)
        if fits or not self.has_learned:
            self.header = Header.of(self, task.dataset)
        self.has_learned |= fits or learned is not None
        if fits:
            self.train()

    def _build(self, backbone: Backbone, learned: Learned | None) -> None:
        """A view, with the weights of the start in place, what is trained on it, and what was learned before."""
        self.backbone = backbone.view()
        start = dict(learned.start) if learned else {}
        if learned is None and self.start is not None and not self.derived:
            start = Method.load(self.start, self.backbone_name).weights.in_the_backbone()
        self.backbone.replace_tensors(start)
        self.prompts, self.weights = ClassPrompts(self.backbone, self.templates, self.lower_case_names), LearnedWeights(start)
        self.trainable = self.build()
        if not self.derived:
            self.weights = LearnedWeights(start, self.backbone, self.trainable)
        if learned is not None:
            self.load_adapter_state_dict(learned.tensors)
            self.weights.active_entries = learned.header.active_entries
        if not self.backbone.logit_scale.is_meta:
            self.to(self.device)

    # Logits, in a trainer or without one

    def forward(self, images: Tensor, classnames: Sequence[str] | None = None) -> Tensor:
        """Logits (B, C), float32, of uint8 pixels or normalised floats (B, 3, H, W) for the classes it is set up for.

        Other class names may be given. Zero-shot answers where `novel_rule` is "frozen" and a class was not trained on.

        Raises:
            MethodError: no classes are known yet, or class-bound tensors have no rule for others.
        """
        name = type(self).__name__
        if self.task is None:
            raise MethodError(f"{name} is not set up: fit or test it with a data module, or name classes in predict()")
        names = tuple(classnames or self.task.train)
        pixels = self.backbone.normalise(images) if images.dtype == torch.uint8 else images
        if not set(names) <= set(self.classnames):
            if self.novel_rule == "frozen":
                twin = self.backbone.pretrained
                return twin.logits(twin.encode_image(pixels), self.prompts.pretrained_features(names))
            if self.class_bound:
                bound = f"'{self.class_bound[0]}' of {name} has rows for the classes that were trained on alone"
                raise MethodError(f"{bound}: others need a novel_rule, for example novel_rule = 'frozen'")
        if torch.is_grad_enabled() and self.trainable:
            return self.logits(pixels, self.class_features(names))
        with self.backbone.merged():
            with torch.inference_mode(False), torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                state = state_of(self.parameters())
                classes = self.prompts.cached(("evaluated", names), lambda: self.class_features(names), state)
            return self.logits(pixels, classes)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        """One step: logits of the batch for the trained classes, the sum of the losses."""
        if not self.trainable or self.derived:
            return None
        images, labels = labelled(batch)
        classes = self.class_features(self.classnames)
        logits = self.logits(self.backbone.normalise(images), classes)
        terms = self.losses(logits, labels, classes)
        total, self.last_losses = summed(terms)
        if not torch.isfinite(total):
            tensors = {"logits": logits, **self.trainable}
            raise MethodError(not_finite(type(self).__name__, self.global_step, terms, tensors))
        shown = {f"train/{name}": term for name, term in self.last_losses.items()}
        self.log_dict(shown, prog_bar=True, on_step=True, on_epoch=False, batch_size=len(labels))
        return total

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Accuracy of a batch of the val draw, or of a test split, among the classes of its split."""
        split = split_of(batch, self.task, self.trainer, dataloader_idx)
        images, labels = labelled(batch)
        accuracy = self.evaluation.update(split, self(images, split.classnames), labels)
        name = name_of(split, self.trainer.testing)
        self.log(name, accuracy, prog_bar=True, batch_size=len(labels), add_dataloader_idx=False)

    test_step = validation_step

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Probabilities (B, C) of a batch of test images among the classes of its split."""
        split = split_of(batch, self.task, self.trainer, dataloader_idx)
        return self(labelled(batch)[0], split.classnames).softmax(dim=-1)

    def configure_optimizers(self) -> Any:
        """The optimiser over what is trained; its learning rate is set once per epoch, or once per step."""
        if self.has_optimizer and self.trainable:
            return self.optimisation.configure(self.trainer, self.trainable.values())
        return None

    def predict(self, images: Any, classes: Sequence[str] | None = None) -> Tensor:
        """Probabilities (B, C), float32 on the CPU, of any images for any classes, or for those that were trained on.

        Images are paths, PIL images, or uint8 pixels (B, 3, H, W) of the backbone's size.

        Raises:
            DataError: images that are missing or damaged.
            MethodError: nothing says which classes.
        """
        if self.header is None and classes is not None:
            self.setup(task=Task("", None, tuple(classes), ()))
        header = self._header_now()
        self.templates = self.prompts.templates = tuple(header.templates)
        pixels, names = as_pixels(images, self.preprocessing), tuple(classes or header.classnames)
        with evaluating(self), torch.no_grad():
            parts = [self(part.to(self.device), names).softmax(dim=-1).cpu() for part in pixels.split(100)]
        return torch.cat(parts)

    # Files, checkpoints, copies

    def learned(self) -> Learned:
        """What was learned, and whose it is; MethodError where the method has not been set up."""
        return Learned(self._header_now(), self.adapter_state_dict(), self.weights.start)

    def _header_now(self) -> Header:
        if self.header is None:
            raise MethodError(f"{type(self).__name__} has not been set up: nothing says its classes")
        return dataclasses.replace(self.header, active_entries=self.weights.active_entries)

    def save(self, path: Path | str, recipe: str | None = None) -> int:
        """Write what was learned, and perhaps by which recipe; returns the size of the file in bytes."""
        learned = self.learned()
        header = dataclasses.replace(learned.header, recipe=recipe or learned.header.recipe)
        return dataclasses.replace(learned, header=header).write(Path(path))

    @classmethod
    def load(cls, path: Path | str, backbone: str | None = None) -> Any:
        """The method of a file of learned weights, ready for any class names; `Method.load` takes any method's.

        `backbone` names its backbone where that is at hand under another name.

        Raises:
            MethodError: not such a file, or one of another method or backbone.
        """
        return read_learned(Path(path)).method(None if cls is Method else cls, backbone, f"'{path}': ")

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """What is trained and nothing else: a checkpoint never holds the backbone."""
        return self.weights.trained_part(super().state_dict(*args, **kwargs), self, kwargs.get("prefix", ""))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Put back what `state_dict` gave; MethodError where names or shapes are others."""
        refuse_other_shapes(state_dict, self.weights.names_in(self))
        return super().load_state_dict(state_dict, strict=False)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Beside what is trained: whose it is, and what the schedule spans."""
        span = self.optimisation.span(self.trainer) if self.has_optimizer else {}
        checkpoint["clipbench"] = {"header": self._header_now().as_dict(), "span": span}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Set up for its classes and templates, where no trainer has; MethodError where it is another's or spans others."""
        stored = checkpoint.get("clipbench") or {}
        header = Header.of_checkpoint(stored)
        header.refuse_other(type(self).__name__, self.backbone_name, load_backbone(self.backbone_name).hash)
        if self.header is None:
            self.setup(task=header.task, train_seed=header.train_seed)
            self.header, self.has_learned, self.templates = header, True, tuple(header.templates)
            self.prompts.templates = self.templates
        if self._trainer is not None and self._trainer.state.fn == "fit" and self.has_optimizer:
            self.optimisation.refuse_other_span(self._trainer, stored["span"])

    def unfreeze(self) -> None:
        """Let train what the method trains, and nothing else."""
        for parameter in self.trainable.values():
            parameter.requires_grad_(True)
        self.train()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A method is pickled and copied as its settings, the backbone's name and hash, and what was learned."""
        learned = None if self.header is None else self.learned().cloned()
        return restored, (type(self), dict(self.hparams), learned, self.has_learned, self.training, self.device)
