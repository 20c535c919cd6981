"""MFT: mask fine-tuning of frozen weights, carried to CLIP.

The seed is "MFT for vision-language models" (Zhang et al., arXiv 2512.23073), whose code and details are not public;
it did not test CLIP. This is our adaptation, not a reproduction: the rule and the gradient are those of the same
authors' language-model code (arXiv 2503.22764, Ming-K9/MFT@b36f2da `modeling_llama.py` [code]):

    A = |S|;  g = 0 at the floor((1 - keep) n) smallest A of a matrix, else 1;  y = x (W g)^T + b
    dL/dS = sign(S) W dL/d(W g), also where g = 0; sign(0) = 0

Loss: cross-entropy, nothing else; CLIPFit's distillation as an option [ours].

What is whose:
- keep 0.9 and four consecutive blocks [code]; the last four of the image tower, and the two projections as the
  counterpart of the paper's "projector" [ours].
- The papers start from a fine-tuned model [code, paper]. Here the pretrained CLIP by default [ours]; `start: clipfit`
  is the honest counterpart.
- Initial scores `magnitude` [ours]: the smallest weights go first. `normal` at 0.02 is what the official code comes to,
  `kaiming_uniform` what its constructor writes [code].
- AdamW without weight decay [code], cosine per step [ours]. Official lr 2e-5 over thousands of steps [code]; few-shot
  runs are shorter, so by default the rate follows a rule [ours] (`lr_rule`).
- The `threshold` rule is the code's "global" mode but for scores equal to the threshold [code]. The paper's soft
  variant could not be read; the `soft` gate here is ours.
- Exact counts: the official floor((1 - 0.9) n) in floating point drops one too few wherever n is a multiple of 10.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from clipbench.backbone.model import Backbone
from clipbench.errors import ConfigError
from clipbench.methods.base import Method
from clipbench.randomness import torch_generator
from clipbench.tuning.choices import refuse_unread
from clipbench.tuning.distillation import Distillation
from clipbench.tuning.gates import RuleName, ScoreInit, initial_scores, make_rule
from clipbench.tuning.linears import NO_BATCHNORM
from clipbench.tuning.mask_set import MaskSet
from clipbench.tuning.masks import Mask
from clipbench.tuning.optimisation import total_steps
from clipbench.tuning.selection import means_projection, needs_of, select_linears, select_tensors


class MFT(Method):
    """MFT.

    Args:
        train: which weights are masked, as sentences over Linears; a tower's projection is a sentence of its own
            ("image tower, proj").
        rule: "topk_abs" (keep a share of every matrix), "threshold" (keep scores above one), or "soft".
        keep: of topk_abs: the share that is kept of every matrix, as the decimal fraction that it is written as; None:
            0.9.
        threshold: of the rule of that name; None: 0.005.
        score_init: where scores begin: "magnitude", "normal", "kaiming_uniform" or "constant".
        score_scale: scale or constant of the beginning, not of kaiming_uniform; None: 0.02.
        lr_rule: c of the rule lr = c tau / (0.5 steps), with tau the mean over the matrices of the initial cut (of
            |S - threshold| in the middle, or 1 for the soft gate): a cosine's rates then sum to c times what a score
            has to move to change sides. None: `lr` as it is.
        distillation_weight: weight of the distillation from the class features before training; 0: none.
        shared: the arguments of `Method`; `lr` only where `lr_rule` is None.
    """

    def __init__(
        self,
        train: Sequence[str] = ("image tower, last 4 blocks, Linears",),
        rule: RuleName = "topk_abs",
        keep: float | None = None,
        threshold: float | None = None,
        score_init: ScoreInit = "magnitude",
        score_scale: float | None = None,
        lr_rule: float | None = 2.0,
        distillation_weight: float = 0.0,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        if lr_rule is not None:
            refuse_unread("lr_rule sets the learning rate (lr_rule null takes lr as it is)", lr=shared.get("lr"))
            if lr_rule <= 0:
                raise ConfigError(f"lr_rule must be above 0, or null for the lr as it is; it is {lr_rule}")
        if rule != "topk_abs":
            refuse_unread(f"rule {rule} keeps no fixed share", keep=keep)
        if rule != "threshold":
            refuse_unread(f"rule {rule} has none", threshold=threshold)
        if score_init == "kaiming_uniform":
            refuse_unread("kaiming_uniform has its own scale", score_scale=score_scale)
        self.selection, self.rule, self.score_init, self.lr_rule = tuple(train), rule, score_init, lr_rule
        self.keep = 0.9 if keep is None else keep
        self.threshold = 0.005 if threshold is None else threshold
        self.score_scale = 0.02 if score_scale is None else score_scale
        make_rule(rule, self.keep, self.threshold)  # refuses a ratio that is none
        if rule == "topk_abs" and score_init != "kaiming_uniform" and self.score_scale == 0:
            raise ConfigError("score_scale 0 of MFT begins with all scores at 0, where rule topk_abs has no gradient")
        if score_init == "normal" and self.score_scale < 0:
            raise ConfigError(f"score_scale of score_init normal is a standard deviation, not {self.score_scale}")
        self.masks, self.distillation = MaskSet(), Distillation(distillation_weight)
        constant = score_init == "constant"
        open_at_first = {
            "topk_abs": self.keep == 1,
            "threshold": constant and self.score_scale > self.threshold,
            "soft": constant and self.score_scale == 0,
        }
        if not open_at_first[rule]:
            self.exempt = {"check_starts_at_zero_shot": "some weights are masked before training"}
        if "image" in self.requires():
            self.exempt = {**self.exempt, **NO_BATCHNORM}

    def requires(self) -> Mapping[str, set[str]]:
        """What the selection needs."""
        return needs_of(self.hparams_initial["train"])

    def build(self) -> dict[str, nn.Parameter]:
        """Put a mask over every selected weight."""
        self._cuts: dict[str, float] = {}
        linears, tensors = targets(self.backbone, self.selection)
        return self.masks.put(self.backbone, linears, tensors, self._mask)

    def _mask(self, name: str, weight: Tensor) -> Mask:
        generator = torch_generator(self.train_seed, f"mask {name}")
        scores = initial_scores(weight, self.score_init, self.score_scale, generator)
        mask = Mask(scores, make_rule(self.rule, self.keep, self.threshold))
        if self.lr_rule is not None and not weight.is_meta:
            self._cuts[name] = mask.rule.distance(mask.scores)
        return mask

    def num_trainable(self) -> int:
        """One score per masked weight."""
        linears, tensors = targets(self.backbone.pretrained, self.selection)
        sizes = [linear.in_features * linear.out_features for linear in linears.values()]
        return sum(sizes) + sum(tensor.numel() for tensor in tensors.values())

    def losses(self, logits: Tensor, labels: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """Cross-entropy, and the distillation where it has a weight."""
        terms = super().losses(logits, labels, classes)
        return terms | self.distillation.terms(classes, self.prompts, self.classnames)

    def configure_optimizers(self) -> Any:
        """The optimiser, at the learning rate of the rule where there is one.

        Raises:
            ConfigError: the scores begin where the rule has no scale.
        """
        if self.lr_rule is not None:
            cut = sum(self._cuts.values()) / len(self._cuts)
            if cut <= 0:
                where = f"score_init {self.score_init} at {self.score_scale}, rule {self.rule}, keep {self.keep}"
                raise ConfigError(f"lr_rule has no scale, the initial cut is 0 ({where}): set lr_rule to null")
            self.optimisation.lr = self.lr_rule * cut / (0.5 * total_steps(self.trainer))
            self.diagnostics |= {"initial_cut": cut, "lr": self.optimisation.lr}
        return super().configure_optimizers()

    def on_fit_start(self) -> None:
        """Take down the gates that training begins with."""
        self.masks.begin()

    def on_train_end(self) -> None:
        """What the masks came to."""
        self.diagnostics |= self.masks.diagnostics()

    def adapter_state_dict(self) -> dict[str, Tensor]:
        """A hard mask as one bit per weight, a soft one as its scores."""
        return self.masks.bits()

    def load_adapter_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Scores of which the same rule makes the same gates.

        Raises:
            MethodError: tensors that are missing, too many, or not of this shape and keep ratio.
        """
        self.masks.load_bits(tensors)


def targets(backbone: Backbone, sentences: Sequence[str]) -> tuple[dict[str, nn.Linear], dict[str, nn.Parameter]]:
    """The Linears and the bare projections that the sentences mean.

    Raises:
        ConfigError: a sentence means nothing, or cannot be read.
    """
    bare = [text for text in sentences if means_projection(text)]
    others = [text for text in sentences if text not in bare]
    linears = select_linears(backbone, others) if others or not bare else {}
    return linears, select_tensors(backbone, bare) if bare else {}
