"""MFT: mask fine-tuning of frozen weights, carried to CLIP.

The seed is "MFT for vision-language models" (Zhang et al., arXiv 2512.23073), whose code and details are not public;
it did not test CLIP. This is our adaptation, not a reproduction: the rule and the gradient are those of the same
authors' language-model code (arXiv 2503.22764, Ming-K9/MFT@b36f2da `modeling_llama.py` [code]):

    A = |S|;  g = 0 at the floor((1 - keep) n) smallest A of a matrix, else 1;  y = x (W g)^T + b
    dL/dS = sign(S) W dL/d(W g), also where g = 0

Loss: cross-entropy, nothing else; CLIPFit's distillation as an option [ours].

What is whose:
- keep 0.9 and four consecutive blocks [code]; the last four of the image tower, and the two projections as the
  counterpart of the paper's "projector" [ours].
- The papers start from a fine-tuned model [code, paper]. Here the pretrained CLIP by default [ours]; `start: clipfit`
  is the honest counterpart.
- Initial scores `magnitude` [ours]: the smallest weights go first. `normal` at 0.02 is what the official code comes to,
  `kaiming_uniform` what its constructor writes [code].
- AdamW without weight decay [code], cosine per step [ours]. Official lr 2e-5 over thousands of steps [code]; few-shot
  runs are shorter, so by default the rate follows the travel rule [ours] (`travel`).
- The `threshold` rule is the code's "global" mode but for scores equal to the threshold [code]. The paper's soft
  variant could not be read; the `soft` gate here is ours.
- Exact counts: the official floor((1 - 0.9) n) in floating point drops one too few wherever n is a multiple of 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from clipbench.errors import ConfigError
from clipbench.methods.mask_tuning import BATCHNORM, MaskTuning
from clipbench.tuning.gates import InitName, RuleName, initial_scores, make_rule
from clipbench.tuning.masks import Mask
from clipbench.tuning.selection import read_sentence, select_linears, select_tensors


class MFT(MaskTuning):
    """MFT.

    Args:
        train: which weights are masked, as sentences over Linears; a tower's projection is a sentence of its own
            ("image tower, proj").
        rule: topk_abs (keep a share of every matrix), threshold (keep scores above one), or soft.
        keep: share that topk_abs keeps of every matrix, as the decimal fraction that it is written as.
        threshold: of the rule of that name.
        init: where scores begin: magnitude, normal, kaiming_uniform or constant.
        init_value: scale or constant of the beginning.
        travel: c of the rule lr = c tau / (0.5 steps), with tau the mean over the matrices of the initial cut (of
            |S - threshold| in the middle, or 1 for the soft gate): a cosine's rates then sum to c times what a score
            has to move to change sides. null: `lr` as it is.
        shared: the arguments of `TowerTuning`.
    """

    needs: ClassVar = {"image": {"transformer"}}  # of the default; an object has those of its `train`

    def __init__(
        self,
        train: Sequence[str] = ("image tower, last 4 blocks, Linears",),
        rule: RuleName = "topk_abs",
        keep: float = 0.9,
        threshold: float = 0.005,
        init: InitName = "magnitude",
        init_value: float = 0.02,
        travel: float | None = 2.0,
        **shared: Any,
    ) -> None:
        self.needs = needs_of(train)  # type: ignore[misc]
        super().__init__(**shared)
        if travel is not None and travel <= 0:
            raise ConfigError(f"travel must be above 0, or null for the lr as it is; it is {travel}")
        make_rule(rule, keep, threshold)
        self.selection = tuple(train)
        self.rule: RuleName = rule
        self.keep, self.threshold = keep, threshold
        self.init: InitName = init
        self.init_value = init_value
        self.travel = travel
        constant = init == "constant"
        open_at_first = {
            "topk_abs": keep == 1,
            "threshold": constant and init_value > threshold,
            "soft": constant and init_value == 0,
        }
        self.starts_at_zero_shot = open_at_first[rule] and self.start is None
        if "image" in self.needs:
            self.exempt = BATCHNORM

    def build(self) -> dict[str, nn.Parameter]:
        """Put a mask over every selected weight."""
        linears, tensors = targets(self.backbone, self.selection)
        return self.put_masks(linears, tensors, self._mask)

    def _mask(self, name: str, weight: Tensor) -> Mask:
        generator = self.train_generator(f"mask {name}")
        scores = initial_scores(weight, self.init, self.init_value, generator)
        return Mask(scores, make_rule(self.rule, self.keep, self.threshold))

    def trained_count(self) -> int:
        """One score per masked weight."""
        with self.backbone.pristine_tensors():
            linears, tensors = targets(self.backbone, self.selection)
        sizes = [linear.in_features * linear.out_features for linear in linears.values()]
        return sum(sizes) + sum(tensor.numel() for tensor in tensors.values())

    def configure_optimizers(self) -> Any:
        """The optimiser, at the learning rate of the travel rule where there is one.

        Raises:
            ConfigError: the scores begin where the rule has no scale.
        """
        if self.travel is not None:
            cuts = [mask.rule.distance(self._at_start[f"{name}.scores"]) for name, mask in self.masks.items()]
            cut = sum(cuts) / len(cuts)
            if cut <= 0:
                told = f"init {self.init} at {self.init_value}, rule {self.rule}, keep {self.keep}"
                raise ConfigError(f"the travel rule has no scale, the initial cut is 0 ({told}): set travel to null")
            self.lr = self.travel * cut / (0.5 * self.total_steps())
            self.findings |= {"initial_cut": cut, "lr": self.lr}
        return super().configure_optimizers()


def targets(backbone: Any, sentences: Sequence[str]) -> tuple[dict[str, nn.Linear], dict[str, nn.Parameter]]:
    """The Linears and the bare projections that the sentences mean.

    Raises:
        ConfigError: a sentence means nothing, or cannot be read.
    """
    bare = [] if isinstance(sentences, str) else [text for text in sentences if _means_projection(text)]
    others = sentences if isinstance(sentences, str) else [text for text in sentences if text not in bare]
    linears = select_linears(backbone, others) if others or not bare else {}
    return linears, select_tensors(backbone, bare) if bare else {}


def _means_projection(text: str) -> bool:
    sentence = read_sentence(text)
    return sentence.blocks is None and sentence.wanted == ("proj",)


def needs_of(sentences: Sequence[str]) -> dict[str, set[str]]:
    """What the selection needs: blocks and projections are those of our transformers; other Linears any tower has."""
    if isinstance(sentences, str):
        return {}  # refused where the selection is read
    read = [(read_sentence(text), _means_projection(text)) for text in sentences]
    towers = {tower for sentence, bare in read if sentence.blocks is not None or bare for tower in sentence.towers}
    return {tower: {"transformer"} for tower in sorted(towers)}
