"""The base of all methods: an ordinary LightningModule around a view of a frozen CLIP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipbench.argument_types import refuse_wrong_types
from clipbench.backbone.clip import Backbone, load_backbone
from clipbench.backbone.spec import require, resolve_spec
from clipbench.backbone.view import BackboneView
from clipbench.data.classnames import distinct
from clipbench.data.pictures import as_pixels
from clipbench.data.task import Task
from clipbench.data.templates import templates_for_task
from clipbench.errors import MethodError
from clipbench.methods.answers import Answers
from clipbench.methods.arguments import keep_own, refuse_unknown
from clipbench.methods.checkpoint import take_checkpoint
from clipbench.methods.evaluation import Evaluation, evaluating, labelled, split_of, task_of
from clipbench.methods.loss import loss_of_step
from clipbench.methods.weights_file import Header, Learned, finished, read_learned, restored
from clipbench.randomness import seeded
from clipbench.tuning.class_prompts import ClassPrompts
from clipbench.tuning.learned_weights import LearnedWeights, check_declared, restrict_state_dict
from clipbench.tuning.optimisation import Optimisation, OptimizerName, ScheduleName


class Method(L.LightningModule):
    """A way to adapt CLIP.

    To be written, in the order of the paper's method section: `build` and `num_trainable`; to be overridden where the
    method differs from zero-shot CLIP: `requires`, `class_features`, `image_features`, `logits`, `losses`, and
    `adapter_state_dict` with its inverse where something other than the trained tensors is stored. Class attributes
    (`novel_rule` and `class_bound` for tensors of the trained classes alone, `interpolates`) say the rest. Store each
    argument of `__init__` under its own name, and pass the others on with `super().__init__(**shared)`.

    At hand in `build` and after it: `backbone`, a view to `unfreeze`, `replace_linear` and `parametrize` (also
    `embed_dim` and `text_width`; `pretrained` is the frozen twin); `prompts`, class features from the recipe's
    templates, trained or `pretrained_features`; `classnames` that are trained on; `train_seed`; `diagnostics`, a dict
    for the record; afterwards `trainable`, what `build` returned. Taken are also `task`, `templates`, `header`,
    `start`, `weights`, `evaluation`, `optimisation`, `preprocessing`, `backbone_name`, `template_set`, `has_learned`,
    `last_losses`. Parts to hold, in `tuning`: `Distillation`, `WrappedLinears`, `MaskSet`, `Context`, `Noise`.

    Args:
        backbone: name of the backbone (`clipbench list backbones`).
        template_set: the named set of templates that prompts are made from.
        start: file of learned weights to start from, in a bench also a recipe, which runs first; None: pretrained.
        optimizer: "sgd", "adam" or "adamw"; it and all that follow are explained in `tuning.optimisation.Optimisation`;
            what a choice does not read stays None, and a setting that nothing reads is a ConfigError.
    """

    version: ClassVar[int] = 1  # raised when a change moves this method's numbers
    novel_rule: str = "own"  # "frozen": zero-shot answers for classes that were not trained on
    class_bound: tuple[str, ...] = ()  # trained tensors with a row for each trained class, without meaning for others
    has_optimizer: ClassVar[bool] = True  # whether it is trained by gradient steps, and so takes optimiser settings
    derived: ClassVar[bool] = False  # whether it trains nothing and is computed from what its `start` learned
    learns: bool = False  # whether it is fitted and stored although it trains nothing; once built: whether at all
    interpolates: bool = True  # whether there is a way back to the pretrained model (WiSE-FT): not from a random start
    lower_case_names: ClassVar[bool] = False  # whether class names stand in lower case in its prompts
    exempt: Mapping[str, str] = {}  # checks of the conformance suite that have no meaning here: name to reason
    backbone: BackboneView
    prompts: ClassPrompts

    def __init__(
        self, backbone: str = "mini", template_set: str = "coop", start: str | None = None,
        optimizer: OptimizerName = "sgd", lr: float | None = None, momentum: float | None = None,
        weight_decay: float = 5e-4, schedule: ScheduleName = "cosine", warmup_epochs: int | None = None,
        warmup_lr: float | None = None, warmup_steps: int | None = None, final_lr: float | None = None,
        eps: float | None = None, **unknown: Any,
    ) -> None:  # fmt: skip
        refuse_unknown(type(self), unknown)
        super().__init__()
        self.save_hyperparameters()
        keep_own(type(self), self.hparams)
        refuse_wrong_types(type(self), self.hparams)
        spec = resolve_spec(backbone)
        require(spec, self.requires(), type(self).__name__)
        self.preprocessing = spec.preprocessing
        self.backbone_name, self.template_set, self.start = backbone, template_set, start
        if self.has_optimizer:
            rates = (warmup_epochs, warmup_lr, warmup_steps, final_lr)
            self.optimisation = Optimisation(optimizer, lr, momentum, weight_decay, schedule, *rates, eps)
        self.task: Task | None = None  # what it is set up for now
        self.header: Header | None = None  # what it was trained for, or would be
        self.has_learned, self.train_seed = False, 1
        self.trainable: dict[str, nn.Parameter] = {}
        self.classnames: tuple[str, ...] = ()  # trained on
        self.templates: tuple[str, ...] = ()
        self.weights, self.evaluation = LearnedWeights(), Evaluation()
        restrict_state_dict(self, lambda: self.weights.trainable.values())  # a checkpoint never holds the backbone
        self.diagnostics: dict[str, Any] = {}  # what the record says about the fit
        self.last_losses: dict[str, Tensor] = {}

    # What an author says

    def requires(self) -> Mapping[str, set[str]]:
        """Abilities of towers (`backbone/spec.py`); called before `__init__` is done: reads `hparams_initial`."""
        return {}

    def build(self) -> Mapping[str, Tensor]:
        """Put what is trained into the view, or make it an attribute of self; returns the parameters by name.

        Torch's global CPU generator is seeded for it, by `train_seed`. What is made on the CPU moves with the method.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what it trains: it needs a method build()")

    def num_trainable(self) -> int:
        """How many numbers are trained, from widths and settings; `setup` compares it with what was built."""
        raise NotImplementedError(f"{type(self).__name__} does not say how many numbers it trains: num_trainable()")

    def class_features(self, classnames: Sequence[str]) -> Tensor:
        """Features (C, D) of any list of class names; they need not be unit vectors."""
        return self.prompts.features(classnames)

    def image_features(self, images: Tensor) -> Tensor:
        """Features (B, D) of images (B, 3, H, W) with the backbone's mean and std; they need not be unit vectors."""
        return self.backbone.encode_image(images)

    def logits(self, features: Tensor, classes: Tensor) -> Tensor:
        """Logits (B, C) in float32 of image features (B, D) for the classes' features (C, D)."""
        return self.backbone.logits(features, classes)

    def losses(self, logits: Tensor, labels: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """The terms of the loss by name; their sum is minimised."""
        return {"cross_entropy": F.cross_entropy(logits, labels)}

    def regularisation(self, images: Tensor, features: Tensor, logits: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """Further terms of the loss, those that look at the images (normalised) or at their features."""
        return {}

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
            task: instead of the data module's; `train_seed` goes with it and seeds initialisation and noise.
            learned: what was learned before: it says the task, and is put in place; MethodError where it is another's.
            backbone: instead of the one of that name, for example one without weights.
        """
        name, fits = type(self).__name__, stage == "fit"
        if learned is not None:
            learned.header.refuse_other(type(self), self.backbone_name, load_backbone(self.backbone_name).hash)
            task, train_seed = learned.header.task, learned.header.train_seed
        elif task is None:
            task, train_seed = task_of(self._trainer, self.task, self.train_seed, name)
        fresh = learned is not None or not self.has_learned
        if fits and not fresh and self.class_bound and self.classnames != task.train:
            raise MethodError(f"{name} has learned '{self.class_bound[0]}' for other classes than '{task.dataset}' has")
        templates = learned.header.templates if learned else templates_for_task(self.template_set, task)
        self.task, self.templates = task, tuple(templates)
        if fresh and (learned or self.header is None or (self.classnames, self.train_seed) != (task.train, train_seed)):
            self.classnames, self.train_seed = task.train, train_seed
            self._build(backbone or load_backbone(self.backbone_name), learned)
        self.prompts.templates = self.templates
        self.evaluation.begin(task, self.weights.seen, stage)
        if learned is not None:
            self.header = learned.header.on(self.backbone_name)
        elif fits or fresh:
            self.header, self.classnames = Header.of(self, task), task.train
        self.has_learned |= fits or learned is not None
        if fits:
            self.weights.begin_fit(task.train)
            self.train()

    def _build(self, backbone: Backbone, learned: Learned | None) -> None:
        """A view, with the weights of the start in place, what is trained on it, and what was learned before."""
        self.backbone = backbone.view()
        start, seen = (dict(learned.start), learned.header.seen) if learned else ({}, frozenset())
        if not start and self.start is not None and not self.derived:
            before = Method.load(self.start, self.backbone_name).weights
            start, seen = before.in_the_backbone(), seen | before.seen
        self.backbone.replace_tensors(start)
        self.prompts = ClassPrompts(self.backbone, self.templates, self.lower_case_names)
        self.weights = LearnedWeights(start)
        with seeded(self.train_seed, "build"):
            built = self.build()
        self.trainable = check_declared(self, built, None if self.derived else self.num_trainable())
        self.learns = type(self).learns or bool(self.trainable)
        if not self.derived:
            self.weights = LearnedWeights(start, self.backbone, self.trainable, self.interpolates)
        self.weights.seen |= seen
        if learned is not None and learned.tensors is not None:
            self.load_adapter_state_dict(learned.tensors)
            self.weights.active_entries, self.weights.fits = learned.header.active_entries, learned.header.fits or 1
        if not self.backbone.logit_scale.is_meta:
            self.to(self.device)

    def forward(self, images: Tensor, classnames: Sequence[str] | None = None) -> Tensor:
        """Logits (B, C), float32, of uint8 pixels or normalised floats (B, 3, H, W) for the classes it is set up for.

        Other class names may be given; `Answers` says who answers for those that were not trained on.
        """
        if self.task is None:
            raise MethodError(f"{type(self).__name__} is not set up: fit or test it with a data module first")
        return Answers(self, images).logits(classnames or self.task.train)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        """One step: logits of the batch for the trained classes, the sum of the losses."""
        if not self.trainable or self.derived:
            return None
        (images, labels), classes = labelled(batch), self.class_features(self.classnames)
        pixels = self.backbone.normalise(images)
        features = self.image_features(pixels)
        logits = self.logits(features, classes)
        terms = self.losses(logits, labels, classes) | self.regularisation(pixels, features, logits, classes)
        return loss_of_step(self, logits, terms, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Accuracy of a batch of the val draw, or of a test split, among the classes of its split."""
        split = split_of(batch, self.task, self.trainer, dataloader_idx)
        images, labels = labelled(batch)
        answers, testing = Answers(self, images, split), self.trainer.testing
        logits = answers.logits(split.classnames)
        accuracy, name = self.evaluation.update(split, logits, labels, testing)
        if testing and self.evaluation.joint:
            self.evaluation.joint.update(split, logits, answers.logits(self.evaluation.joint.classnames), labels)
        self.log(name, accuracy, prog_bar=True, batch_size=len(labels), add_dataloader_idx=False)

    test_step = validation_step

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Probabilities (B, C) of a batch of test images among the classes of its split."""
        split = split_of(batch, self.task, self.trainer, dataloader_idx)
        logits = Answers(self, labelled(batch)[0], split).logits(split.classnames)
        return self.evaluation.finite(logits.softmax(dim=-1), type(self).__name__)

    def configure_optimizers(self) -> Any:
        """The optimiser over what is trained; its learning rate is set once per epoch, or once per step."""
        steps = self.has_optimizer and self.trainable
        return self.optimisation.configure(self.trainer, self.trainable.values()) if steps else None

    def predict(self, images: Any, classes: Sequence[str] | None = None) -> Tensor:
        """Probabilities (B, C), float32 on the CPU, of any images for any classes, or for those that were trained on.

        Images: paths, PIL, or uint8 pixels (B, 3, H, W) of the backbone's size. DataError: damaged ones, equal classes.
        """
        if self.header is None and classes is not None:
            self.setup(task=Task("", None, distinct(classes), ()))
        header, pixels = finished(self.header), as_pixels(images, self.preprocessing)
        names = tuple(header.classnames) if classes is None else distinct(classes)
        with evaluating(self), torch.no_grad(), self.prompts.using(header.templates):
            parts = [self(part.to(self.device), names).softmax(dim=-1).cpu() for part in pixels.split(100)]
        return self.evaluation.finite(torch.cat(parts), type(self).__name__)

    # Files, checkpoints, copies

    def save(self, path: Path | str, recipe: str | None = None) -> int:
        """Write what was learned; returns the size of the file in bytes."""
        return Learned.of(self.header, self.adapter_state_dict(), self.weights, recipe).write(Path(path))

    @classmethod
    def load(cls, path: Path | str, backbone: str | None = None) -> Any:
        """The method of a file of learned weights, for any class names; `Method.load` takes any method's."""
        return read_learned(Path(path)).method(None if cls is Method else cls, backbone, f"'{path}': ")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Beside what is trained: whose it is, and what the schedule spans."""
        span = self.optimisation.span(self.trainer) if self.has_optimizer else {}
        checkpoint["clipbench"] = {"header": finished(self.header, self.weights).as_dict(), "span": span}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Set up for its classes and templates, where no trainer has; MethodError where it is another's."""
        take_checkpoint(self, checkpoint)

    def unfreeze(self) -> Method:
        """Let train what the method trains, and nothing else."""
        nn.ParameterList(self.trainable.values()).requires_grad_(True)
        return self.train()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A method is pickled and copied as its settings, the backbone's name and hash, and what was learned."""
        learned = None
        if self.header is not None:
            learned = Learned.of(self.header, self.adapter_state_dict(), self.weights).cloned()
        return restored, (type(self), dict(self.hparams), learned, self.has_learned, self.training, self.device)
