"""`ivlp` against muzairkhattak/multimodal-prompt-learning `trainers/independentVL.py`: `CustomCLIP` and its CLIP."""

from __future__ import annotations

from pathlib import Path

from tools.agreement.compare import Measured, compare, our_method, run
from tools.agreement.prompted import BLOCKS, SGD, both_depths, of_both_towers, prompted, prompts, tiny
from tools.agreement.side import of_model


def measure(checkout: Path, scratch: Path) -> Measured:
    """Both sides on the tiny CLIP, prompts before every block as in the recipe."""
    backbone, (settings, design) = tiny(scratch), both_depths(2, BLOCKS)
    with prompted(checkout, scratch, "independentVL") as (ivlp, build):
        theirs = of_model(
            lambda names: ivlp.CustomCLIP(prompts("IVLP", **settings), list(names), build(trainer="IVLP", **design)),
            of_both_towers,
        )
        return compare(our_method("ivlp", backbone, text_depth=BLOCKS, image_depth=BLOCKS), theirs, SGD)


if __name__ == "__main__":
    run("ivlp", "muzairkhattak/multimodal-prompt-learning", "float32 instead of half and float32 mixed", measure)
