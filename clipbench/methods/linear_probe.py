"""Linear probe: logistic regression on frozen image features (Radford et al., 2021; CoOp's few-shot version).

Features f are the image tower's, not normalised, of plain views (no augmentation) of the train draw. The probe
minimises, by L-BFGS with at most 1000 iterations (KaiyangZhou/CoOp@ff61507 `lpclip/linear_probe.py` [code]),

    C sum_i CE(W f_i + b, y_i) + |W|^2 / 2

C by accuracy on the few-shot val draw: the best of 1e6, 1e4, ... 1e-6 (the first of equals), then 8 times the better
end of an interval in log10 C, at first one to both sides of the best; the left end of equals; the interval is halved
towards that end. The last winner counts. The final fit sees the train draw alone.

Ours: features in float64; where there is no val draw, cross-validation inside the train draw (the k-th image of each
class in fold k mod 4, fewer folds where a class has fewer images); with one image per class there is nothing to choose
by, and C is 1. The diagnostics of the record say which. The probe has no weights for other classes: zero-shot
answers there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipbench.methods.arguments import refuse_unknown
from clipbench.methods.base import Method
from clipbench.tuning.folds import Array, HeldOut
from clipbench.tuning.rows import rows_of

LOG10_C = (6, 4, 2, 0, -2, -4, -6)
HALVINGS = 8


class Probe(NamedTuple):
    """A fitted probe: weight (C, D), bias (C,), float64, and whether L-BFGS converged."""

    weight: Array
    bias: Array
    converged: bool

    def predict(self, features: Array) -> Array:
        """The most probable class of each image of (N, D), int64 (N,)."""
        return np.asarray((features @ self.weight.T + self.bias).argmax(axis=1))


def fit_probe(features: Array, labels: Array, classes: int, log10_c: float, max_iter: int = 1000) -> Probe:
    """L2-regularised multinomial logistic regression by L-BFGS.

    Args:
        features: (N, D).
        labels: (N,) in 0 .. classes - 1; each occurs.
        classes: C.
        log10_c: logarithm of the inverse strength of the regularisation.
        max_iter: iterations at most.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if classes == 1:
        return Probe(np.zeros((1, features.shape[1])), np.zeros(1), True)
    regression = LogisticRegression(solver="lbfgs", C=10.0**log10_c, max_iter=max_iter)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        regression.fit(features.astype(np.float64), labels)
    converged = not any(issubclass(one.category, ConvergenceWarning) for one in caught)
    weight, bias = regression.coef_, regression.intercept_
    if classes == 2:  # one row w, b with P(1) = sigmoid(w f + b)
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return Probe(weight, bias, converged)


def choose_log10_c(correct: Callable[[float], int]) -> float:
    """The logarithm of C by the number of images that a probe with it classifies rightly (see the top of the file)."""
    counts = [correct(exponent) for exponent in LOG10_C]
    best = LOG10_C[int(np.argmax(counts))]
    left, right, chosen = best - 1.0, best + 1.0, float(best)
    for _ in range(HALVINGS):
        middle = (left + right) / 2
        if correct(left) < correct(right):
            chosen, left = right, middle
        else:
            chosen, right = left, middle
    return chosen


class LinearProbe(Method):
    """Linear probe.

    Args:
        backbone: name of the backbone; any.
        template_set: the named set of templates of the zero-shot answers for classes that were not trained on.
        start: file of learned weights whose image features are probed; None: the pretrained ones.
        max_iter: iterations of L-BFGS at most.
    """

    has_optimizer: ClassVar[bool] = False
    novel_rule = "frozen"
    class_bound = ("weight", "bias")
    interpolates = False
    exempt: Mapping[str, str] = {
        "check_starts_at_zero_shot": "a head that starts at zero gives every class the same logit"
    }

    def __init__(
        self, backbone: str = "mini", template_set: str = "coop", start: str | None = None, max_iter: int = 1000,
        **unknown: Any,
    ) -> None:  # fmt: skip
        refuse_unknown(type(self), unknown)
        super().__init__(backbone, template_set, start)
        self.max_iter = max_iter
        self.automatic_optimization = False

    def build(self) -> dict[str, nn.Parameter]:
        """The weight and bias of a linear layer over the trained classes, zero."""
        classes, device = len(self.classnames), self.backbone.logit_scale.device
        self.weight = nn.Parameter(torch.zeros(classes, self.backbone.embed_dim, device=device))
        self.bias = nn.Parameter(torch.zeros(classes, device=device))
        self.fitted = False
        return {"weight": self.weight, "bias": self.bias}

    def num_trainable(self) -> int:
        """C (D + 1)."""
        return len(self.classnames) * (self.backbone.embed_dim + 1)

    def class_features(self, classnames: Sequence[str]) -> Tensor:
        """The rows of weight and bias of trained classes, (C, D + 1).

        Raises:
            UnknownName: a class that was not trained on.
        """
        rows = torch.cat([self.weight, self.bias[:, None]], dim=1)
        return rows_of(rows, classnames, self.classnames, "linear probe")

    def logits(self, features: Tensor, classes: Tensor) -> Tensor:
        """W f + b of the features as they are, (B, C) in float32."""
        with torch.autocast(features.device.type, enabled=False):
            return F.linear(features.float(), classes[:, :-1].float(), classes[:, -1].float())

    def on_fit_start(self) -> None:
        """Every fit solves the probe once."""
        self.fitted = False

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        """One step is all: -1 ends the epoch."""
        return -1 if self.fitted else None

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """The whole fit; the batch's augmented images are not looked at."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        features, labels = self._features(data.draw_dataloader())
        held_out = self._features(data.val_dataloader())
        log10_c = self._choose(features, labels, *held_out)
        probe = self._fit(features, labels, log10_c)
        with torch.no_grad():
            self.weight.copy_(torch.from_numpy(probe.weight))
            self.bias.copy_(torch.from_numpy(probe.bias))
        self.diagnostics |= {"log10_c": log10_c, "converged": probe.converged}
        scores = torch.from_numpy(features @ probe.weight.T + probe.bias)
        cross_entropy = F.cross_entropy(scores, torch.from_numpy(labels))
        self.last_losses = {"cross_entropy": cross_entropy, "total": cross_entropy}
        self.fitted = True

    def _fit(self, features: Array, labels: Array, log10_c: float) -> Probe:
        return fit_probe(features, labels, len(self.classnames), log10_c, self.max_iter)

    @torch.no_grad()
    def _features(self, loader: Iterable[Any]) -> tuple[Array, Array]:
        """Features (N, D) in float64 and labels (N,) of a loader, in order."""
        features, labels = [np.zeros((0, self.backbone.embed_dim))], [np.zeros(0, dtype=np.int64)]
        for batch in loader:
            images = self.backbone.normalise(batch.image.to(self.device))
            features.append(self.image_features(images).double().cpu().numpy())
            labels.append(batch.label.numpy())
        return np.concatenate(features), np.concatenate(labels)

    def _choose(self, features: Array, labels: Array, val_features: Array, val_labels: Array) -> float:
        """log10 C, by the val draw or else by cross-validation; what it was chosen by goes into the diagnostics."""
        held_out = HeldOut.of(labels, len(val_labels))
        if not held_out.total:
            self.diagnostics = held_out.diagnostics()
            return 0.0

        @cache
        def correct(log10_c: float) -> int:
            if not held_out.folds:
                return int((self._fit(features, labels, log10_c).predict(val_features) == val_labels).sum())
            right = 0
            for out in held_out.folds:
                probe = self._fit(features[~out], labels[~out], log10_c)
                right += int((probe.predict(features[out]) == labels[out]).sum())
            return right

        chosen = choose_log10_c(correct)
        self.diagnostics = held_out.diagnostics(correct(chosen))
        return chosen
