"""`lp_plus_plus` against FereshteShakeri/FewShot-CLIP-Strong-Baseline `methods/linear_probe_p2.py`.

Its `forward` is run whole, with 25 steps, so that those of the text weights are among them; what it gives to the loss
and to its optimiser is noted, and our probe takes the same steps from the same bias. Its accuracy on test images at the
best step on val images must be ours.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from clipbench.methods.lp_plus_plus import Images, Probe
from tools.agreement.checkout import official
from tools.agreement.compare import Measured, our_method, run
from tools.agreement.tiny import BASE, NOVEL, SIZE, official_model, test_images, write_tiny

STEPS, SHOTS = 25, 3
TEMPLATE = ["a photo of a {}."]
SGD = torch.optim.SGD


class Noted:
    """What the official loop does, step by step."""

    def __init__(self) -> None:
        self.logits: list[Tensor] = []
        self.losses: list[Tensor] = []
        self.gradients: list[list[Tensor]] = []
        self.bias = torch.zeros(0)
        self.tensors: list[Tensor] = []

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss, noted."""
        self.logits.append(logits.detach().clone())
        self.losses.append(F.cross_entropy(logits, labels))
        return self.losses[-1]

    def optimizer(self, tensors: Any, lr: float, momentum: float) -> torch.optim.Optimizer:
        """Its SGD, with gradients noted."""
        self.tensors = list(tensors)
        self.bias, self.lr = self.tensors[1].detach().clone(), float(lr)
        sgd = SGD(self.tensors, float(lr), momentum=momentum)
        sgd.register_step_pre_hook(lambda *_: self.gradients.append([t.grad.clone() for t in self.tensors]))  # type: ignore[union-attr]
        return sgd

    def variable(self, value: Tensor, requires_grad: bool) -> Tensor:
        """The text weights."""
        self.alpha = value.detach().clone().requires_grad_(requires_grad)
        return self.alpha


def measure(checkout: Path, scratch: Path) -> Measured:
    """Both sides on the tiny CLIP."""
    method: Any = our_method("lp_plus_plus", write_tiny(scratch / "tiny"), steps=STEPS)
    generator, noted, found = torch.Generator().manual_seed(3), Noted(), Measured()
    labels = torch.arange(len(BASE)).repeat_interleave(SHOTS)
    train, val = (torch.randn((len(labels), 3, SIZE, SIZE), generator=generator) for _ in range(2))
    wanted = torch.arange(16) % len(BASE)
    with official(checkout, "methods.linear_probe_p2", "utils", "clip.model") as (module, utils, model):
        tower = official_model(scratch / "tiny", model.build_model).requires_grad_(False)
        text = utils.clip_classifier(list(BASE), TEMPLATE, tower)
        with torch.no_grad():
            test = tower.encode_image(test_images())  # type: ignore[operator]
            test = test / test.norm(dim=-1, keepdim=True)
            zero_shot = tower.logit_scale.exp() * test @ utils.clip_classifier(list(NOVEL), TEMPLATE, tower)  # type: ignore[operator]
        settings = {"train_epoch": STEPS, "shots": SHOTS, "dataset": "", "output_dir": ""}
        with (
            mock.patch.object(torch, "float16", torch.float32),
            mock.patch.object(module, "F", SimpleNamespace(cross_entropy=noted.loss)),
            mock.patch.object(module, "Variable", noted.variable),
            mock.patch.object(torch.optim, "SGD", noted.optimizer),
        ):
            _, accuracy = module.LinearProbe_P2(settings).forward(
                [(train, labels)], [(val, labels)], test, wanted, text, tower, list(BASE)
            )
    method.eval()
    with torch.no_grad():
        features = method.prompts.features(BASE)
        ours, held_out = (Images.of(method.image_features(part), features, labels) for part in (train, val))
    probe = Probe(ours, noted.bias)
    found.see("terms", torch.tensor(probe.rates[0]), torch.tensor(noted.lr))
    for step in range(STEPS):
        with torch.no_grad():
            found.see("logits", probe.logits(ours), noted.logits[step])
        found.see("terms", probe.step(), noted.losses[step])
        for tensor, gradient in zip((probe.weight, probe.bias), noted.gradients[step], strict=True):
            assert tensor.grad is not None
            found.see("gradients", tensor.grad, gradient)
    for tensor, theirs in zip((probe.weight, probe.bias, probe.alpha), (*noted.tensors, noted.alpha[0]), strict=True):
        found.see("tensors", tensor, theirs)
    with torch.no_grad():
        after = F.linear(test, *noted.tensors) + noted.alpha * (test @ text)
        tested = Images.of(method.image_features(test_images()), features, wanted)
        found.see("base", probe.logits(tested), after)
        method.start_bias = noted.bias
    method.solve(ours, held_out)
    right = int((method(test_images(), BASE).argmax(dim=-1) == wanted).sum())
    if abs(100 * right / len(wanted) - accuracy) > 1e-6:
        raise SystemExit(f"at the best step on val {right} of 16 test images are right, officially {accuracy} %")
    with torch.no_grad():
        found.see("novel", method(test_images(), NOVEL), zero_shot)
    return found


if __name__ == "__main__":
    run(
        "lp_plus_plus",
        "FereshteShakeri/FewShot-CLIP-Strong-Baseline",
        "25 steps instead of five, all on the same images; the val draw is that of the benchmark, and where there is "
        "none the step is chosen inside the train draw; float32 instead of half; zero-shot for novel classes",
        measure,
    )
