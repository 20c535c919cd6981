"""The base of all methods: an ordinary LightningModule around a view of a frozen CLIP.

A method author writes, in the order of the paper's method section:

- `requires()`: abilities that the towers must have; reads `self.hparams`, since it is asked before anything else.
- `build()`: put what is trained into `self.backbone` (`unfreeze`, `replace_linear`, `parametrize`) or make it an
  attribute of `self`; return it by name.
- `num_trainable()`: how many numbers that is, from the method's formula.
- `class_features(classnames)`, `image_features(images)`, `logits(images, classes)`: by default CLIP's own.
- `losses(logits, labels, classes)`: terms by name; their sum is minimised. By default the cross-entropy.
- `adapter_state_dict()`, `load_adapter_state_dict(tensors)`: where what is stored is not the trained tensors.
- class attributes: `version`, `novel_rule`, `class_bound`, `starts_at_zero_shot`, `has_optimizer`, `exempt` ...

At hand, once it is set up: `self.backbone` (a view; `self.backbone.pretrained` is the frozen twin), `self.prompts`
(class features from hand-written prompts, now and pretrained), `self.task` (class names), `self.templates`,
`self.train_seed`, `self.trainable`, `self.optimisation`, `self.diagnostics` (goes into the record). Parts to hold:
`tuning.distillation`, `tuning.linears`, `tuning.mask_set`, `tuning.context`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

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
from clipbench.methods.arguments import from_stored, settings_of
from clipbench.methods.evaluation import Evaluation, evaluating, labelled, not_finite, split_of, task_of
from clipbench.methods.weights_file import Header, Learned, class_of, read_learned
from clipbench.tuning.class_prompts import ClassPrompts
from clipbench.tuning.learned_weights import LearnedWeights, refuse_other_shapes
from clipbench.tuning.optimisation import Optimisation, OptimizerName
from clipbench.tuning.schedule import ScheduleName


class Method(L.LightningModule):
    """A way to adapt CLIP.

    Args:
        backbone: name of the backbone (`clipbench list backbones`).
        template_set: the named set of templates that prompts are made from.
        start: file of learned weights that this method starts from (in a bench also a recipe, which runs first); None:
            the pretrained weights.
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
        BackboneError: the backbone lacks an ability that the method requires; before anything is loaded.
    """

    version: ClassVar[int] = 1
    """Raise it when a change moves this method's numbers."""
    novel_rule: str = "own"
    """"own", or "frozen": zero-shot answers for classes that were not trained on."""
    class_bound: tuple[str, ...] = ()
    """Trained tensors with a row for each class that is trained on; they have no meaning for other classes."""
    starts_at_zero_shot: bool = True
    """Whether the untrained method has the logits of zero-shot with the same templates."""
    has_optimizer: ClassVar[bool] = True
    """Whether it is trained by gradient steps, and so takes the settings of an optimiser."""
    derived: ClassVar[bool] = False
    """Whether it trains nothing and is computed from what its `start` learned."""
    interpolates: ClassVar[bool] = True
    """Whether there is a way back from what was learned to the pretrained model (WiSE-FT)."""
    lower_case_names: ClassVar[bool] = False
    """Whether class names stand in lower case in its prompts."""
    exempt: Mapping[str, str] = {}
    """Checks of the conformance suite that have no meaning here: name to reason."""

    def __init__(
        self,
        backbone: str = "mini",
        template_set: str = "coop",
        start: str | None = None,
        optimizer: OptimizerName = "sgd",
        lr: float | None = None,
        momentum: float | None = None,
        weight_decay: float = 5e-4,
        schedule: ScheduleName = "cosine",
        warmup_epochs: int | None = None,
        warmup_lr: float | None = None,
        warmup_steps: int | None = None,
        final_lr: float | None = None,
        **unknown: Any,
    ) -> None:
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
            self.optimisation = Optimisation(
                optimizer, lr, momentum, weight_decay, schedule, warmup_epochs, warmup_lr, warmup_steps, final_lr
            )
        self.backbone: BackboneView
        self.prompts: ClassPrompts
        self.weights: LearnedWeights
        self.trainable: dict[str, nn.Parameter] = {}
        self.task: Task | None = None
        self.header: Header | None = None
        self.has_learned = False
        self.train_seed = 1
        self.classnames: tuple[str, ...] = ()
        self.templates: tuple[str, ...] = ()
        self.evaluation = Evaluation()
        self.diagnostics: dict[str, Any] = {}
        self.last_losses: dict[str, Tensor] = {}
        self._given: Learned | None = None
        self._cached_features: dict[tuple[str, ...], tuple[Any, Tensor]] = {}

    # What an author says

    def requires(self) -> Mapping[str, set[str]]:
        """Abilities that the towers must have: tower ("image", "text") to names (`backbone/spec.py`)."""
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
        """The inverse of `adapter_state_dict`, into a method that is set up.

        Raises:
            MethodError: the tensors do not fit.
        """
        self.weights.load(tensors)

    # What it is set up for

    def setup(
        self, stage: str | None = None, *, task: Task | None = None, train_seed: int = 1,
        templates: Sequence[str] | None = None, backbone: Backbone | None = None,
    ) -> None:  # fmt: skip
        """Take over class names from the trainer's data module, and build what is trained where it is not there yet.

        Args:
            stage: Lightning's; "fit" puts what is trained into train mode.
            task: instead of the data module's.
            train_seed: with it: seed of initialisation and noise.
            templates: instead of those that the template set has for the task's dataset.
            backbone: instead of the one of that name, for example one without weights.

        Raises:
            ConfigError: there is no data module, or there are several devices.
            MethodError: class-bound tensors were learned for other classes.
        """
        if task is None:
            task, train_seed = task_of(self._trainer) or (self.task, self.train_seed)
        name, fits = type(self).__name__, stage == "fit"
        if task is None:
            raise ConfigError(f"{name} does not know its classes: give a data module of clipbench, or setup(task=...)")
        if self.has_learned and fits and self.class_bound and self.classnames != task.train:
            raise MethodError(f"{name} has learned '{self.class_bound[0]}' for other classes than '{task.dataset}' has")
        self.task, self.templates = task, tuple(templates or templates_for_task(self.template_set, task))
        built_for = (self.classnames, self.train_seed) if self.header else None
        if fits or not self.has_learned:
            self.classnames = task.train
        if not self.has_learned and built_for != (task.train, train_seed):
            self.train_seed = train_seed
            self._build(backbone or load_backbone(self.backbone_name))
        self.prompts.templates = self.templates
        self.evaluation.begin(task)
        if fits or not self.has_learned:
            self.header = Header(
                method=name, init_args=dict(self.hparams), recipe=None, backbone=self.backbone_name,
                backbone_hash=self.backbone.hash, template_set=self.template_set, templates=list(self.templates),
                dataset=task.dataset, classnames=list(task.train), train_seed=self.train_seed,
                class_path=f"{type(self).__module__}.{type(self).__qualname__}",
            )  # fmt: skip
        if fits:
            self.has_learned = True
            self.train()

    def _build(self, backbone: Backbone) -> None:
        """A view, with the weights of the start in place, and what is trained on it."""
        self.backbone, start = backbone.view(), dict(self._given.start) if self._given else {}
        if self._given is None and self.start is not None and not self.derived:
            start = self._weights_of_start(Path(self.start))
        self.backbone.replace_tensors(start)
        self.prompts = ClassPrompts(self.backbone, self.templates, self.lower_case_names)
        self.trainable = self.build()
        if not self.derived:
            self.backbone.refuse_shared(self.trainable)
            self.weights = LearnedWeights(self.backbone, self.trainable, start)
        self._cached_features.clear()
        self.to(self.device)

    def _weights_of_start(self, path: Path) -> dict[str, Tensor]:
        """The tensors of the backbone that the start has changed."""
        if not path.is_file():
            raise ConfigError(f"start: there is no file '{path}' (a recipe's name is for `clipbench bench`)")
        other = Method.load(path, self.backbone_name)
        if not other.weights.lie_in_the_backbone():
            raise MethodError(f"start: what {type(other).__name__} learned ('{path}') is not in the weights alone")
        return {name: tensor.clone() for name, tensor in other.backbone.changed_tensors().items()}

    # Logits, in a trainer or without one

    def forward(self, images: Tensor, classnames: Sequence[str] | None = None) -> Tensor:
        """Logits for the classes that the method is set up for, or for others.

        Args:
            images: (B, 3, H, W): uint8 pixels, which are normalised here, or normalised floats.
            classnames: instead of those that are trained on.

        Returns:
            (B, C) float32. Zero-shot's where `novel_rule` is "frozen" and a class was not trained on.

        Raises:
            MethodError: no classes are known yet, or class-bound tensors have no rule for others.
        """
        if self.task is None or self.header is None:
            raise MethodError(
                f"{type(self).__name__} is not set up: fit or test it with a data module, or name classes in predict()"
            )
        names = tuple(classnames or self.task.train)
        pixels = self.backbone.normalise(images) if images.dtype == torch.uint8 else images
        if not set(names) <= set(self.classnames):
            if self.novel_rule == "frozen":
                twin = self.backbone.pretrained
                return twin.logits(twin.encode_image(pixels), self.prompts.pretrained_features(names))
            if self.class_bound:
                raise MethodError(
                    f"{type(self).__name__} has '{self.class_bound[0]}' for the classes that were trained on alone: "
                    "it needs a novel_rule for others, for example novel_rule = 'frozen'"
                )
        if torch.is_grad_enabled() and self.trainable:
            return self.logits(pixels, self.class_features(names))
        with self.backbone.merged():
            state = (self.templates, state_of(self.parameters()))
            if names not in self._cached_features or self._cached_features[names][0] != state:
                with torch.inference_mode(False), torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                    self._cached_features[names] = (state, self.class_features(names))
            return self.logits(pixels, self._cached_features[names][1])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        """One step: logits of the batch for the trained classes, the sum of the losses."""
        if not self.trainable or self.derived:
            return None
        images, labels = labelled(batch)
        classes = self.class_features(self.classnames)
        logits = self.logits(self.backbone.normalise(images), classes)
        terms = self.losses(logits, labels, classes)
        total = torch.stack([term.float() for term in terms.values()]).sum()
        self.last_losses = {name: term.detach() for name, term in (terms | {"total": total}).items()}
        if not torch.isfinite(total):
            tensors = {"logits": logits, **self.trainable}
            raise MethodError(not_finite(type(self).__name__, self.global_step, terms, tensors))
        self.log_dict(
            {f"train/{name}": term for name, term in self.last_losses.items()},
            prog_bar=True, on_step=True, on_epoch=False, batch_size=len(labels),
        )  # fmt: skip
        return total

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Accuracy of a batch of the val draw, or of a test split, among the classes of its split."""
        testing, task = self.trainer.testing, cast(Task, self.task)
        loaders = self.trainer.num_test_batches if testing else self.trainer.num_val_batches
        split = split_of(batch, task, not testing, dataloader_idx, len(loaders))
        images, labels = labelled(batch)
        accuracy = self.evaluation.update(split, self(images, split.classnames), labels)
        name = "val/accuracy" if split.name == "val" else f"{'test' if testing else 'val'}/{split.name}"
        self.log(name, accuracy, prog_bar=not testing, batch_size=len(labels), add_dataloader_idx=False)

    test_step = validation_step

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Probabilities (B, C) of a batch of test images among the classes of its split."""
        split = split_of(batch, cast(Task, self.task), False, dataloader_idx, len(self.trainer.num_predict_batches))
        return self(labelled(batch)[0], split.classnames).softmax(dim=-1)

    def configure_optimizers(self) -> Any:
        """The optimiser over what is trained; its learning rate is set once per epoch, or once per step."""
        if not self.has_optimizer or not self.trainable:
            return None
        return self.optimisation.configure(self.trainer, self.trainable.values())

    def predict(self, images: Any, classes: Sequence[str] | None = None) -> Tensor:
        """Probabilities of any images and classes.

        Args:
            images: paths, PIL images, or uint8 pixels (B, 3, H, W) of the backbone's size.
            classes: class names; None: those that were trained on.

        Returns:
            (B, C) float32, on the CPU.

        Raises:
            DataError: images that are missing or damaged.
            MethodError: nothing says which classes.
        """
        if self.header is None and classes is not None:
            self.setup(task=Task("", None, tuple(classes), ()))
        header = self.learned().header
        self.templates = self.prompts.templates = tuple(header.templates)
        pixels, names = as_pixels(images, self.preprocessing), tuple(classes or header.classnames)
        with evaluating(self), torch.no_grad():
            parts = [self(part.to(self.device), names).softmax(dim=-1).cpu() for part in pixels.split(100)]
        return torch.cat(parts)

    # Files, checkpoints, copies

    def learned(self) -> Learned:
        """What was learned, and whose it is.

        Raises:
            MethodError: the method has not been set up.
        """
        if self.header is None:
            raise MethodError(f"{type(self).__name__} has not been set up: there is nothing that it learned")
        header = dataclasses.replace(self.header, active_entries=self.weights.active_entries)
        return Learned(header, self.adapter_state_dict(), self.weights.start)

    def save(self, path: Path | str, recipe: str | None = None) -> int:
        """Write what was learned, and perhaps by which recipe; returns the size of the file in bytes."""
        learned = self.learned()
        header = dataclasses.replace(learned.header, recipe=recipe or learned.header.recipe)
        return dataclasses.replace(learned, header=header).write(Path(path))

    @classmethod
    def load(cls, path: Path | str, backbone: str | None = None) -> Any:
        """The method of a file of learned weights, ready for any class names; `Method.load` takes any method's.

        Args:
            path: the file.
            backbone: under which name its backbone is at hand, if another.

        Raises:
            MethodError: not such a file, or one of another method or backbone.
        """
        try:
            return cls.from_learned(read_learned(Path(path)), backbone)
        except MethodError as error:
            raise MethodError(f"'{path}': {error}") from error

    @classmethod
    def from_learned(cls, learned: Learned, backbone: str | None = None) -> Any:
        """The same from what is at hand."""
        header = learned.header
        kind = class_of(header) if cls is Method else cls
        start = {} if kind.derived else {"start": None}  # it holds what it started from
        method = from_stored(kind, header.init_args, **start, backbone=backbone or header.backbone)
        method.restore(learned)
        return method

    def restore(self, learned: Learned) -> None:
        """Set up for what was learned, with it in place.

        Raises:
            MethodError: it was learned by another method or on another backbone, or does not fit.
        """
        header = learned.header
        header.refuse_other(type(self).__name__, self.backbone_name, load_backbone(self.backbone_name).hash)
        self.header, self.has_learned, self._given = None, False, learned
        self.setup(task=header.task, train_seed=header.train_seed, templates=header.templates)
        self.load_adapter_state_dict(learned.tensors)
        self.weights.active_entries = header.active_entries
        self.header = dataclasses.replace(header, init_args=dict(self.hparams), backbone=self.backbone_name)
        self.has_learned = True

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """What is trained and nothing else: a checkpoint never holds the backbone."""
        prefix, state = kwargs.get("prefix", ""), super().state_dict(*args, **kwargs)
        own = {prefix + name for name in self.weights.names_in(self)} if self.header else set()
        for name in [name for name in state if name.startswith(prefix) and name not in own]:
            del state[name]
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Put back what `state_dict` gave; MethodError where names or shapes are others."""
        refuse_other_shapes(state_dict, self.weights.names_in(self) if self.header else {})
        return super().load_state_dict(state_dict, strict=False)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Beside what is trained: whose it is, and what the schedule spans."""
        checkpoint["clipbench"] = {"header": self.learned().header.as_dict(), "span": {}}
        if self.has_optimizer:
            checkpoint["clipbench"]["span"] = self.optimisation.span(self.trainer)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Set up for the classes and templates of the checkpoint, where no trainer has done so.

        Raises:
            MethodError: it is of another method or backbone, or its schedule spans another number of epochs.
        """
        stored = checkpoint.get("clipbench") or {}
        if "header" not in stored:
            raise MethodError("the checkpoint was not written by this version of clipbench: load the weights beside it")
        header = Header(**stored["header"])
        header.refuse_other(type(self).__name__, self.backbone_name, load_backbone(self.backbone_name).hash)
        if self.header is None:
            self.setup(task=header.task, train_seed=header.train_seed, templates=header.templates)
            self.has_learned = True
        if self._trainer is not None and self._trainer.state.fn == "fit" and self.has_optimizer:
            self.optimisation.refuse_other_span(self._trainer, stored["span"])

    def unfreeze(self) -> None:
        """Let train what the method trains, and nothing else."""
        for parameter in self.trainable.values():
            parameter.requires_grad_(True)
        self.train()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A method is pickled and copied as its settings, the backbone's name and hash, and what was learned."""
        if self.header is None:
            return _restored, (type(self), dict(self.hparams))
        learned = self.learned()
        tensors = {name: tensor.clone() for name, tensor in learned.tensors.items()}
        copy = dataclasses.replace(learned, tensors=tensors)
        return _restored, (type(self), dict(self.hparams), copy, self.has_learned, self.training, self.device)


def _restored(
    kind: type[Method], arguments: dict[str, Any], learned: Learned | None = None, has_learned: bool = False,
    training: bool = True, device: torch.device | None = None,
) -> Method:  # fmt: skip
    """The method that `__reduce_ex__` took apart."""
    if learned is None:
        return kind(**arguments)
    method: Method = kind.from_learned(learned)
    method.has_learned = has_learned
    return method.train(training).to(device)
