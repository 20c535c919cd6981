"""LP++: a linear probe that mixes in the text features, class by class (Huang et al., CVPR 2024, arXiv 2404.02285).

    logits_c = w_c . v + b_c + a_c (v . t_c),   v and t unit vectors, without CLIP's scale

over N train images (one augmented pass), by full-batch gradient steps with rates that the data give (section 3):

    w, b: SGD with momentum 0.9, rate 4 N / (largest eigenvalue of V'V), V the features (N, D)
    a:    every tenth step, rate N / (4 max_c sum_i (v_i . t_c)^2)
    start: w_c the sum of the features of class c, a the mean over classes of 250 mean_{i in c} v_i . t_c, the same for
    all; b as torch starts a Linear

Of the 300 steps that one counts after which the most val images are right, the last of equals. Official code:
FereshteShakeri/FewShot-CLIP-Strong-Baseline@f81054f `methods/linear_probe_p2.py`. As there, the gradient of a is never
set to zero: its steps go by the sum of all gradients so far [code].

Differences: the official val draw has as many images as the train draw; here it is that of the benchmark, at most four
a class. Where there is none, the step is chosen by cross-validation inside the train draw (at most four folds), and
with one image in a class it is the last one; the diagnostics of the record say which. The test images of the best step
are not looked at on the way. Means are over the benchmark's three seeds, not ten draws. float32 instead of half. Before
the fit w and b are 0 and a is CLIP's scale, which is zero-shot. The probe has no weights for other classes: zero-shot
answers there [ours].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipbench.errors import ConfigError
from clipbench.methods.arguments import refuse_unknown
from clipbench.methods.base import Method
from clipbench.tuning.feature_bank import FeatureBank, encoded, ours
from clipbench.tuning.folds import HeldOut
from clipbench.tuning.rows import rows_of

EVERY = 10  # steps of w and b between those of a


class Images(NamedTuple):
    """Unit features (N, D) of images, their cosines (N, C) with the classes' text features, and labels (N,)."""

    features: Tensor
    cosines: Tensor
    labels: Tensor

    @classmethod
    def of(cls, features: Tensor, text: Tensor, labels: Tensor) -> Images:
        """From features (N, D) and (C, D) of any norm."""
        unit = F.normalize(features, dim=-1)
        return cls(unit, unit @ F.normalize(text, dim=-1).T, labels)

    def where(self, chosen: Tensor) -> Images:
        """Some of them."""
        return Images(*(tensor[chosen] for tensor in self))


class Probe:
    """The probe in its fit: one `step` after the other.

    Args:
        images: to train on.
        bias: (C,), its start.

    Attributes:
        weight, bias, alpha: (C, D), (C,), (C,).
        rates: of w and b, and of a.
    """

    def __init__(self, images: Images, bias: Tensor) -> None:
        self.images, classes = images, images.cosines.shape[1]
        one_hot = F.one_hot(images.labels, classes).to(images.features)
        self.weight = (one_hot.T @ images.features).requires_grad_()
        self.bias = bias.to(images.features).clone().requires_grad_()
        own = (one_hot * images.cosines).sum(dim=0) / one_hot.sum(dim=0)
        self.alpha = (250 * own.mean()).repeat(classes).requires_grad_()
        count, features = len(images.labels), images.features.double()
        largest = torch.linalg.eigvalsh(features.T @ features)[-1]
        self.rates = float(4 * count / largest), float(count / (4 * images.cosines.square().sum(dim=0).max()))
        self.optimizer = torch.optim.SGD([self.weight, self.bias], self.rates[0], momentum=0.9)
        self.steps = 0

    def logits(self, images: Images) -> Tensor:
        """(N, C)."""
        return F.linear(images.features, self.weight, self.bias) + self.alpha * images.cosines

    def step(self) -> Tensor:
        """One step of w and b, and every tenth time of a; returns the loss before it."""
        loss = F.cross_entropy(self.logits(self.images), self.images.labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.steps += 1
        if self.steps % EVERY == 0:
            assert self.alpha.grad is not None
            with torch.no_grad():
                self.alpha -= self.rates[1] * self.alpha.grad
        return loss.detach()

    @torch.no_grad()
    def correct(self, images: Images) -> int:
        """How many images are right now."""
        return int((self.logits(images).argmax(dim=-1) == images.labels).sum())


class LPPlusPlus(Method):
    """LP++.

    Args:
        backbone: name of the backbone; any.
        template_set: the named set of templates that prompts are made from.
        start: file of learned weights whose features are probed; None: the pretrained ones.
        steps: of w and b, 1 or more.
    """

    has_optimizer: ClassVar[bool] = False
    novel_rule = "frozen"
    class_bound = ("weight", "bias", "alpha")
    sees_images = False  # it trains on a bank of features

    def __init__(
        self, backbone: str = "mini", template_set: str = "coop", start: str | None = None, steps: int = 300,
        **unknown: Any,
    ) -> None:  # fmt: skip
        refuse_unknown(type(self), unknown)
        super().__init__(backbone, template_set, start)
        if steps < 1:
            raise ConfigError(f"LPPlusPlus needs at least one step, steps is {steps}")
        self.steps, self.automatic_optimization, self.fitted = steps, False, False

    # What is trained

    def build(self) -> dict[str, nn.Parameter]:
        """Zero weights and biases beside zero-shot CLIP."""
        classes, scale = len(self.classnames), self.backbone.logit_scale.detach()
        self.weight = nn.Parameter(torch.zeros(classes, self.backbone.embed_dim, device=scale.device))
        self.bias = nn.Parameter(torch.zeros(classes, device=scale.device))
        self.alpha = nn.Parameter(scale.exp().repeat(classes))
        width = self.backbone.embed_dim**-0.5
        self.start_bias = torch.empty(classes).uniform_(-width, width)
        return {"weight": self.weight, "bias": self.bias, "alpha": self.alpha}

    def num_trainable(self) -> int:
        """C (D + 2)."""
        return len(self.classnames) * (self.backbone.embed_dim + 2)

    def class_features(self, classnames: Sequence[str]) -> Any:
        """w (C, D), b (C,), a (C,) and text features (C, D) of trained classes.

        Raises:
            UnknownName: a class that was not trained on.
        """
        rows = [rows_of(tensor, classnames, self.classnames, "LP++") for tensor in self.trainable.values()]
        return *rows, self.prompts.features(classnames)

    def logits(self, features: Tensor, classes: Any) -> Tensor:
        """w . v + b + a (v . t), (B, C) in float32."""
        weight, bias, alpha, text = classes
        with torch.autocast(features.device.type, enabled=False):
            unit, text = F.normalize(features.float(), dim=-1), F.normalize(text.float(), dim=-1)
            return F.linear(unit, weight.float(), bias.float()) + alpha.float() * (unit @ text.T)

    # The fit

    def on_fit_start(self) -> None:
        """Every fit solves the probe once."""
        self.fitted = False

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        """One step of the trainer is all: -1 ends the epoch."""
        return -1 if self.fitted else None

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """The whole fit."""
        data = ours(self.trainer.datamodule)  # type: ignore[attr-defined]
        with torch.autocast(self.device.type, enabled=False):
            text = self.prompts.features(self.classnames).float()
            bank = FeatureBank.fill(self.backbone, data, 1)
            train = Images.of(bank.features[0], text, bank.labels)
            held_out, labels = encoded(self.backbone, data.val_dataloader())
            self.solve(train, Images.of(held_out, text, labels))
        self.fitted = True

    def solve(self, train: Images, val: Images) -> None:
        """Take the steps, and keep the best on val or by cross-validation."""
        step = self._choose(train, val)
        probe = Probe(train, self.start_bias)
        loss = torch.stack([probe.step() for _ in range(step)])[-1]
        with torch.no_grad():
            for name, tensor in self.trainable.items():
                tensor.copy_(getattr(probe, name))
        self.diagnostics |= {"step": step, "lr_weight": probe.rates[0], "lr_alpha": probe.rates[1]}
        self.last_losses = {"cross_entropy": loss, "total": loss}

    def _choose(self, train: Images, val: Images) -> int:
        """The step that counts, from 1; what it was chosen by goes into the diagnostics."""
        held_out = HeldOut.of(train.labels.cpu().numpy(), len(val.labels))
        if not held_out.total:
            self.diagnostics = held_out.diagnostics()
            return self.steps
        folds = [torch.from_numpy(out).to(train.labels.device) for out in held_out.folds]
        pairs = [(train.where(~out), train.where(out)) for out in folds] or [(train, val)]
        right = torch.zeros(self.steps, dtype=torch.int64)
        for seen, out in pairs:
            probe = Probe(seen, self.start_bias)
            for step in range(self.steps):
                probe.step()
                right[step] += probe.correct(out)
        best = int(right.max())
        self.diagnostics = held_out.diagnostics(best)
        return int((right == best).nonzero()[-1]) + 1
