"""R-AMT: regularised mask tuning of the image tower (Zheng et al., ICCV 2023, arXiv 2307.15049), and AMT without it.

Trained: a score m for every weight of the attention (q, k, v, out) of all blocks and of the patch embedding of the
image tower, 28,901,376 on ViT-B/16; W and everything else stay. All from the code (wuw2019/R-AMT@07f8d2c
`masklayers.py`, `masktuning.py`, `visiontransformer.py`; the formulas of the paper itself were not compared):

    g = 1[m > 5e-3], m = 1e-2 at the start, so that training begins at zero-shot CLIP;  W_eff = g W
    dL/dm = W dL/dW_eff                                     (straight-through)
    L_a = CE(100 v . t, y) + 1e-4 * sum over masked tensors of ||m||_2
    L_b = -mean over images of sum_c p0_c log p_c           (p0: zero-shot CLIP's probabilities, p: those of now)

Gradient dropout regularity, element by element with g_a = dL_a/dm, g_b = dL_b/dm, U uniform in (0, 1):

    P = 1/2 (1 + sign(g_a) (g_a + g_b) / (|g_a| + |g_b| + 1e-8))
    gradient of the step = ((1 - l) + l 1[P > U]) g_a,  l = gdr_lambda

The norms are over q, k and v stacked as one 3d x d tensor, as in the code. `amt` is gdr_lambda 0: no second backward
pass, no frozen twin. (In the official trainer switching the regularity off switches the update off as well [code]; not
here.)

A score has to fall by 5e-3 and Adam moves it by about the learning rate a step, so short runs can end where they
began: with fewer than 5 steps an epoch the 30 epochs of the recipe give zero-shot CLIP bit for bit [measured]. This
method warns.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from clipbench.backbone.image import ImageTower
from clipbench.errors import ClipbenchWarning, ConfigError
from clipbench.methods.base import Method
from clipbench.methods.evaluation import labelled
from clipbench.randomness import torch_generator
from clipbench.tuning.distillation import Distillation
from clipbench.tuning.gates import Threshold, initial_scores
from clipbench.tuning.linears import NO_BATCHNORM
from clipbench.tuning.mask_set import MaskSet
from clipbench.tuning.masks import Mask
from clipbench.tuning.noise import Noise
from clipbench.tuning.selection import select_linears

ATTENTION = "image tower, blocks all, attn.*"
MLP = "image tower, blocks all, mlp.*"
PATCHES = "image tower, patch_embed"


def keep_probability(g_a: Tensor, g_b: Tensor) -> Tensor:
    """P: 1 where the gradients agree in sign, else |g_a| / (|g_a| + |g_b|); 1/2 where g_a is 0."""
    return 0.5 * (1 + g_a.sign() * (g_a + g_b) / (g_a.abs() + g_b.abs() + 1e-8))


def regularised(g_a: Tensor, g_b: Tensor, uniform: Tensor, gdr_lambda: float) -> Tensor:
    """((1 - l) + l 1[P > U]) g_a, of the gradients' shape, with l = gdr_lambda."""
    kept = (keep_probability(g_a, g_b) > uniform).to(g_a.dtype)
    return ((1 - gdr_lambda) + gdr_lambda * kept) * g_a


class RAMT(Method):
    """R-AMT, and AMT with `gdr_lambda` 0.

    Args:
        gdr_lambda: strength of the gradient dropout regularity ("GDR_LAMBDA" in the code), from 0 (none) to 1.
        mask_mlp: whether the two MLP weights of every block are masked as well; not in the shipped configurations.
        penalty: weight of the norms of the scores, 0 or more.
        threshold: scores above it keep their weight.
        score_init: where all scores begin, above the threshold.
        distillation_weight: weight of the distillation from the class features before training; 0: none.
        shared: the arguments of `Method`.
    """

    lower_case_names: ClassVar[bool] = True  # as the official code writes class names
    exempt = NO_BATCHNORM

    def __init__(
        self,
        gdr_lambda: float = 1.0,
        mask_mlp: bool = False,
        penalty: float = 1e-4,
        threshold: float = 5e-3,
        score_init: float = 1e-2,
        distillation_weight: float = 0.0,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        if not 0 <= gdr_lambda <= 1:
            raise ConfigError(f"gdr_lambda of RAMT lies between 0 and 1, it is {gdr_lambda}")
        if penalty < 0:
            raise ConfigError(f"penalty of RAMT must not be below 0, it is {penalty}")
        if score_init <= threshold:
            raise ConfigError(f"RAMT begins with all weights kept: score_init {score_init} must lie above {threshold=}")
        self.gdr_lambda, self.mask_mlp, self.penalty = gdr_lambda, mask_mlp, penalty
        self.threshold, self.score_init = threshold, score_init
        self.masks, self.distillation = MaskSet(), Distillation(distillation_weight)
        self._teacher: Tensor | None = None
        self._g_b: list[tuple[nn.Parameter, Tensor]] | None = None

    # What is trained

    def requires(self) -> Mapping[str, set[str]]:
        """Blocks in the image tower."""
        return {"image": {"transformer"}}

    def build(self) -> dict[str, nn.Parameter]:
        """Put a mask, open everywhere, over every weight that is tuned."""
        self.noise = Noise(self.train_seed, "gradient dropout")
        linears = select_linears(self.backbone, [ATTENTION, PATCHES] + ([MLP] if self.mask_mlp else []))
        return self.masks.put(self.backbone, linears, (), self._mask)

    def _mask(self, name: str, weight: Tensor) -> Mask:
        scores = initial_scores(weight, "constant", self.score_init, torch_generator(self.train_seed, name))
        return Mask(scores, Threshold(self.threshold))

    def num_trainable(self) -> int:
        """4 (with the MLP 4 + 2 f) w^2 a block, and 3 p^2 w for the patches; f the MLP's width over w."""
        shape = cast(ImageTower, self.backbone.image).shape
        width, mlp = shape.blocks.width, shape.blocks.mlp_width if self.mask_mlp else 0
        rows, columns = shape.patch_size
        return shape.blocks.layers * (4 * width + 2 * mlp) * width + 3 * rows * columns * width

    # The losses, and the gradient that is made of two

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        """One step; the regularity needs the zero-shot logits of the augmented images first."""
        if self.gdr_lambda > 0:
            if self.trainer.accumulate_grad_batches != 1:
                raise ConfigError("gradient dropout works step by step: trainer.accumulate_grad_batches must be 1")
            twin, pixels = self.backbone.pretrained, self.backbone.normalise(labelled(batch)[0])
            with torch.no_grad():
                features = self.prompts.pretrained_features(self.classnames)
                self._teacher = twin.logits(twin.encode_image(pixels), features)
        try:
            return super().training_step(batch, batch_idx)
        finally:
            self._teacher = None

    def losses(self, logits: Tensor, labels: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """The terms of L_a; in a training step with regularity dL_b/dm is taken on the way."""
        if self._teacher is not None:
            l_b = -(self._teacher.softmax(dim=-1) * logits.log_softmax(dim=-1)).sum(dim=-1).mean()
            scores = [parameter for parameter in self.trainable.values() if parameter.requires_grad]
            gradients = torch.autograd.grad(l_b * self._loss_scale(), scores, retain_graph=True)
            self._g_b = list(zip(scores, gradients, strict=True))
        terms = super().losses(logits, labels, classes)
        terms |= self.distillation.terms(classes, self.prompts, self.classnames)
        return terms | {"norms": self.penalty * self.norms()}

    def norms(self) -> Tensor:
        """Sum over the masked tensors of ||m||_2, with q, k and v of a block as one tensor."""
        stacks: dict[str, list[Tensor]] = {}
        for name, mask in self.masks.masks.items():
            path, _, leaf = name.removesuffix(".weight").rpartition(".")
            stack = f"{path}.qkv" if leaf in ("q_proj", "k_proj", "v_proj") else name
            stacks.setdefault(stack, []).append(torch.linalg.vector_norm(mask.scores))
        return torch.stack([torch.linalg.vector_norm(torch.stack(norms)) for norms in stacks.values()]).sum()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """From here on the noise is that of this step."""
        self.noise.begin_step(self.global_step)

    def on_after_backward(self) -> None:
        """Drop from the gradient of L_a what goes against that of L_b, by chance."""
        if self._g_b is None:
            return
        scale, generator = self._loss_scale(), self.noise.generator(self.device)
        for parameter, g_b in self._g_b:
            uniform = torch.rand(g_b.shape, generator=generator, device=g_b.device, dtype=g_b.dtype)
            if parameter.grad is not None:
                parameter.grad = regularised(parameter.grad / scale, g_b / scale, uniform, self.gdr_lambda) * scale
        self._g_b = None

    def _loss_scale(self) -> float:
        """By how much a mixed precision multiplies the loss (1 without)."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        return float(scaler.get_scale()) if scaler is not None else 1.0

    # Whether anything can happen at all, and what did

    def configure_optimizers(self) -> Any:
        """The optimiser; warns where no score can reach the threshold in the planned steps."""
        configured = super().configure_optimizers()
        rates = self.optimisation.planned_rates(self.trainer)
        planned, needed = sum(rates), self.score_init - self.threshold
        self.diagnostics |= {"sum_of_learning_rates": planned, "fall_needed": needed}
        if self.optimisation.optimizer != "sgd" and planned < needed:
            message = (
                f"no mask can flip, the outcome will be zero-shot CLIP: a score has to fall by {needed:g} from "
                f"{self.score_init:g} to {self.threshold:g}, and the learning rates of the {len(rates)} planned "
                f"steps sum to {planned:.3g}; train {needed / planned:.1f} times as many steps, or at lr "
                f"{self.optimisation.lr * needed / planned:.2g} and more"
            )
            warnings.warn(message, ClipbenchWarning, stacklevel=2)
        return configured

    def on_fit_start(self) -> None:
        """Take down the gates that training begins with."""
        self.masks.begin()

    def on_train_end(self) -> None:
        """What the masks came to."""
        self.diagnostics |= self.masks.diagnostics()

    # What is stored

    def adapter_state_dict(self) -> dict[str, Tensor]:
        """One bit per masked weight."""
        return self.masks.bits()

    def load_adapter_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Scores that make the same gates.

        Raises:
            MethodError: bits that are missing, too many, or not of this shape.
        """
        self.masks.load_bits(tensors)
