"""`zero_shot` against KaiyangZhou/CoOp `trainers/zsclip.py`: `ZeroshotCLIP`, with the sentences of three datasets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from tools.agreement.checkout import official
from tools.agreement.compare import Measured, our_method, run
from tools.agreement.learner import coop_config
from tools.agreement.tiny import BASE, NOVEL, batches, official_model, test_images, write_tiny

DATASETS = {"sun397": "SUN397", "dtd": "DescribableTextures", "oxford_pets": "OxfordPets"}


def measure(checkout: Path, scratch: Path) -> Measured:
    """Both sides on the tiny CLIP, for every dataset."""
    backbone, found = write_tiny(scratch / "tiny"), Measured()
    with official(checkout, "trainers.zsclip", "clip.model") as (zsclip, model), torch.no_grad():
        zsclip.load_clip_to_cpu = lambda cfg: official_model(scratch / "tiny", model.build_model)

        def theirs(dataset: str, names: Sequence[str]) -> Any:
            trainer = zsclip.ZeroshotCLIP()
            trainer.cfg, trainer.device = coop_config(dataset), "cpu"
            trainer.dm = SimpleNamespace(dataset=SimpleNamespace(classnames=list(names)))
            trainer.build_model()
            return trainer.model_inference

        for ours_of, theirs_of in DATASETS.items():
            method, base = our_method("zero_shot", backbone, ours_of), theirs(theirs_of, BASE)
            for images, _ in batches():
                found.see("logits", method(images, BASE), base(images))
            found.see("base", method(test_images(), BASE), base(test_images()))
            found.see("novel", method(test_images(), NOVEL), theirs(theirs_of, NOVEL)(test_images()))
    return found


if __name__ == "__main__":
    run("zero_shot", "KaiyangZhou/CoOp", "nothing is trained; float32 instead of half", measure)
