"""The base of all methods: a strategy with its Lightning side, which is the same for all.

Optimiser and schedule, training, validation and test steps, metrics, checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics.classification import MulticlassAccuracy

from clipbench.data.task import TestSplit
from clipbench.errors import ConfigError, MethodError
from clipbench.methods.schedule import learning_rate, learning_rate_of_step, make_optimizer
from clipbench.methods.strategy import Strategy


class Method(Strategy):
    """A strategy that Lightning can fit and test; the class to derive from."""

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
        self.refuse_other_shapes(checkpoint["state_dict"], self._trained_shapes())

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
