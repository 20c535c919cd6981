"""`bitfit` against FarinaMatteo/rethinking_fewshot_vlms: the biases that `trainable_bias_params` selects."""

from __future__ import annotations

from pathlib import Path

from tools.agreement.checkout import official
from tools.agreement.compare import Measured, run
from tools.agreement.layer_norm import one_run
from tools.agreement.tiny import official_model, write_tiny

TRAIN = (
    "both towers, blocks all, biases, except attn.q_proj.bias and attn.k_proj.bias and attn.v_proj.bias",
    "image tower, ln_pre.bias and ln_post.bias",
    "text tower, ln_final.bias",
)


def measure(checkout: Path, scratch: Path) -> Measured:
    """Both sides on the tiny CLIP."""
    backbone = write_tiny(scratch / "tiny")
    with official(checkout, "fs.utils.model_utils", "clip.model", "clip.clip") as (utils, model, clip):
        theirs = official_model(scratch / "tiny", model.build_model)
        utils.trainable_bias_params(theirs)
        return one_run(theirs, clip.tokenize, "bitfit", backbone, TRAIN)


if __name__ == "__main__":
    differences = (
        "compared without the biases of q, k and v, which the official code misses and the recipe trains; float32 "
        "instead of mixed precision"
    )
    run("bitfit", "FarinaMatteo/rethinking_fewshot_vlms", differences, measure)
