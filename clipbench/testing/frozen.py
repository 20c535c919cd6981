"""What every method leaves as it was: all that it does not declare, the backbone, and other methods beside it."""

from __future__ import annotations

import contextlib
import pickle
from typing import Any

import lightning as L
import torch

from clipbench.backbone.clip import load_backbone
from clipbench.bench.build import ClipbenchCLI
from clipbench.testing import backbones, folders
from clipbench.testing.subject import Subject, images_of, learned_by, tensors_of

GLOBAL = "a common cause is a draw from torch's global generator instead of `tuning.noise.Noise`"


def check_trains_what_it_declares(subject: Subject) -> None:
    """After a fit everything that is declared has moved, and everything else is bit-identical."""
    with subject.cli() as cli:
        method = cli.model
        declared = {id(parameter) for parameter in method.trainable.values()}
        names = {name for name, parameter in method.named_parameters() if id(parameter) in declared}
        before = tensors_of(method)
        names |= learned_by(method).keys() & before.keys() if type(method).learns else set()
        subject.fit(cli)
        after = tensors_of(method)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved <= names, f"moved without being declared: {sorted(moved - names)[:5]}"
    assert moved == names, f"declared but never moved: {sorted(names - moved)[:5]}"


def check_frozen_modules_stay_in_eval_mode(subject: Subject) -> None:
    """During a fit no module of the backbone is in train mode, but for what the method put into it."""
    modes: list[str] = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer: Any, method: Any, *_: Any) -> None:
            put_in = {id(part) for module in method.backbone.replaced.values() for part in module.modules()}
            modules = method.backbone.named_modules()
            modes.extend(name for name, module in modules if module.training and id(module) not in put_in)

    with subject.cli() as cli:
        subject.fit(cli, Watch())
        assert not modes, f"in train mode during fit: {sorted(set(modes))[:5]}"


def check_batchnorm_and_dropout_stay_frozen(subject: Subject) -> None:
    """On a backbone with BatchNorm and dropout: eval mode throughout, statistics and weights bit-identical."""
    name = backbones.write_batchnorm(subject.folder / "batchnorm")
    suite = folders.suite_of_folder(subject.folder / "images", name)
    other = Subject(
        subject.recipe, subject.folder, suite, "shapes", {"model.template_set": "single"} | subject.settings
    )
    check_frozen_modules_stay_in_eval_mode(other)
    if not other.exemption("check_trains_what_it_declares"):
        check_trains_what_it_declares(other)
    check_backbone_stays_as_it_was(other)


def check_backbone_stays_as_it_was(subject: Subject) -> None:
    """After fit, test, load, pickling, interpolation and an exception the backbone is bit-identical to what it was."""

    class Stop(L.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            raise KeyError("a user's own fault")

    path = subject.folder / "learned.safetensors"
    with subject.cli() as cli:
        method, backbone = cli.model, load_backbone(cli.model.backbone_name)
        subject.fit(cli)
        cli.trainer.test(method, datamodule=cli.datamodule, verbose=False)
        method.save(path)
        type(method).load(path)
        pickle.loads(pickle.dumps(method))  # noqa: S301
        with method.backbone.merged():
            method.backbone.changed_tensors()
        if method.interpolates:
            method.weights.interpolate(0.5)
        assert backbone.compute_hash() == backbone.hash
    with subject.cli() as cli, contextlib.suppress(KeyError):
        subject.fit(cli, Stop())
    assert backbone.compute_hash() == backbone.hash
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not any(module.training for module in backbone.modules())


def check_methods_live_side_by_side(subject: Subject) -> None:
    """A second method is fitted and asked between fit and use of the first: both give the logits they give alone."""

    def answers(cli: ClipbenchCLI) -> torch.Tensor:
        images = images_of(cli)
        cli.model.eval()
        with torch.no_grad():
            return torch.cat([cli.model(images, split.classnames) for split in cli.datamodule.task.tests], dim=1)

    other = Subject("clipfit", subject.folder)
    with subject.cli() as cli, other.cli() as others:
        subject.fit(cli)
        alone = answers(cli)
        other.fit(others)
        alone_too = answers(others)
    with subject.cli() as cli, other.cli() as others:
        subject.fit(cli)
        other.fit(others)
        assert torch.equal(answers(others), alone_too), (
            "CLIPFit gives other numbers after this method was fitted beside it"
        )
        assert torch.equal(answers(cli), alone), f"other numbers after CLIPFit was fitted beside it; {GLOBAL}"
