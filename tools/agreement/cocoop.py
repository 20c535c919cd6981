"""`cocoop` against KaiyangZhou/CoOp `trainers/cocoop.py`: `CustomCLIP` with its prompt learner."""

from __future__ import annotations

from pathlib import Path

from tools.agreement.checkout import official
from tools.agreement.compare import Measured, compare, our_method, run
from tools.agreement.learner import context_and_network, coop_config
from tools.agreement.side import of_model, sgd
from tools.agreement.tiny import official_model, write_tiny


def measure(checkout: Path, scratch: Path) -> Measured:
    """Both sides on the tiny CLIP."""
    backbone = write_tiny(scratch / "tiny")
    with official(checkout, "trainers.cocoop", "clip.model") as (cocoop, model):
        tower = official_model(scratch / "tiny", model.build_model).requires_grad_(False)
        theirs = of_model(lambda names: cocoop.CustomCLIP(coop_config(), list(names), tower), context_and_network)
        return compare(our_method("cocoop", backbone), theirs, sgd(0.002))


if __name__ == "__main__":
    run("cocoop", "KaiyangZhou/CoOp", "float32 instead of half", measure)
