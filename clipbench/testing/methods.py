"""What every method must hold, one named property per function; `run_check` honours exemptions, each with a reason."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clipbench.bench.build import method_without_weights
from clipbench.bench.plan import make_plan
from clipbench.bench.run import run_cell
from clipbench.bench.trained_parameters import trained_by
from clipbench.errors import BackboneError, ClipbenchWarning
from clipbench.recipes.recipe import known_recipes, load_recipe, recipe_origin
from clipbench.records.store import comparable
from clipbench.testing import backbones, folders, frozen, learned, plain
from clipbench.testing.frozen import GLOBAL
from clipbench.testing.outcome import refuse_joint_above_half, refuse_unsaid_validation
from clipbench.testing.subject import Subject, images_of, learned_by, scores

Check = Callable[[Subject], None]

VIT = "ViT-B-16/random"


def check_trained_count_is_the_formula(subject: Subject) -> None:
    """The number of trained parameters is what the method's formula says, and on ViT-B/16 what the recipe says."""
    with subject.cli() as cli:
        method = cli.model
        counted = sum(parameter.numel() for parameter in method.trainable.values())
        assert method.derived or counted == method.num_trainable()
    stated = load_recipe(subject.recipe).about.get("parameters")
    ours = subject.recipe in known_recipes() and recipe_origin(subject.recipe) == "clipbench"
    if stated is None or subject.settings or ours:
        return  # what our recipes train is counted in tests/methods/test_counts.py
    with contextlib.suppress(NotImplementedError):  # it looks at values, of which there are none here
        facts = trained_by(subject.recipe, VIT)  # counted for two classes
        trained, per_class = facts["trained_parameters"], facts.get("per_class", 0)
        two = stated.get("fixed", 0) + 2 * stated["per_class"] if isinstance(stated, dict) else stated
        grows = stated["per_class"] if isinstance(stated, dict) else 0
        assert (trained, per_class) == (two, grows), (
            f"the recipe's parameters are {stated}, but on ViT-B/16 it trains {trained} for two classes, "
            f"{per_class} more for each further one"
        )


def check_class_bound_tensors_are_declared(subject: Subject) -> None:
    """A trained tensor whose shape follows the number of classes is declared in `class_bound`, with a novel rule."""
    with subject.cli() as cli:
        method = cli.model
        if method.derived:
            return
        arguments = dict(method.hparams)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ClipbenchWarning)
        two, three = (learned_by(method_without_weights(type(method), arguments, classes=number)) for number in (2, 3))
    bound = {name for name, tensor in two.items() if tensor.shape != three[name].shape}
    declared = method.class_bound
    assert bound == set(declared), f"shapes follow the classes: {sorted(bound)}; declared: {declared}"
    assert not bound or method.novel_rule == "frozen"


def check_gradients_are_finite(subject: Subject) -> None:
    """Every trained tensor gets a finite gradient in one step."""
    with subject.cli() as cli:
        method = cli.model
        batch = next(iter(cli.datamodule.train_dataloader()))
        classes = method.class_features(method.classnames)
        if not method.trainable:
            return
        images = method.backbone.normalise(batch.image)
        features = method.image_features(images)
        logits = method.logits(features, classes)
        terms = method.losses(logits, batch.label, classes) | method.regularisation(images, features, logits, classes)
        torch.stack(list(terms.values())).sum().backward()
        for name, parameter in method.trainable.items():
            assert parameter.grad is not None, f"{name} gets no gradient"
            assert torch.isfinite(parameter.grad).all(), f"{name} gets a gradient that is not finite"


def check_same_cell_same_record(subject: Subject) -> None:
    """The same cell twice gives the same record but for times and environment, whatever ran before."""
    records = []
    for name in ("first", "second"):
        plan = make_plan(subject.request(), subject.folder / name)
        with warnings.catch_warnings():  # a method may warn of so short a run
            warnings.simplefilter("ignore", ClipbenchWarning)
            record = run_cell(plan.cells[0], plan.folder).record
        assert record is not None
        assert record.ok, record.error
        refuse_joint_above_half(record)
        refuse_unsaid_validation(record, load_recipe(subject.recipe))
        records.append(comparable(record))
    first, second = records
    differing = sorted(key for key in first.keys() | second.keys() if first.get(key) != second.get(key))
    assert not differing, f"two runs of one cell differ in {', '.join(differing)}; {GLOBAL}"


def check_training_is_blind_to_test(subject: Subject) -> None:
    """Other test labels, other test images and other images of novel classes leave training bit-identical."""

    def trained(number: int, changed: bool) -> dict[str, torch.Tensor]:
        folder = subject.folder / f"blind-{number}" / "files"  # the folder's name is part of the keys of augmentation
        suite = folders.suite_of_mini(folder, subject.dataset, other_test=changed)
        with Subject(subject.recipe, folder, suite, "images", subject.settings).cli() as cli:
            subject.fit(cli)
            return {name: tensor.detach().clone() for name, tensor in learned_by(cli.model).items()}

    first, second = trained(0, False), trained(1, True)
    moved = [name for name, tensor in first.items() if not torch.equal(tensor, second[name])]
    if moved:
        again = trained(2, False)
        assert torch.equal(first[moved[0]], again[moved[0]]), (
            f"two fits of the same data differ in {moved[0]}; {GLOBAL}"
        )
    assert not moved, f"{moved[0]} saw test data"


def check_permuted_classes_permute_logits(subject: Subject) -> None:
    """The order of class names is the order of logits and nothing else."""
    with subject.cli() as cli:
        method = cli.model
        subject.fit(cli)
        images, names = images_of(cli), method.classnames
        order = torch.randperm(len(names), generator=torch.Generator().manual_seed(0))
        permuted = tuple(names[int(i)] for i in order)
        torch.testing.assert_close(
            scores(method, images, permuted), scores(method, images, names)[:, order], rtol=1e-4, atol=1e-4
        )


def check_moves_to_other_classes(subject: Subject) -> None:
    """Trained on base it scores the novel classes, (B, C) finite; batch size changes nothing."""
    with subject.cli() as cli:
        method = cli.model
        subject.fit(cli)
        method.eval()
        images = images_of(cli)
        split = cli.datamodule.task.tests[-1]
        with torch.no_grad():
            whole = method(images, split.classnames)
            single = torch.cat([method(image[None], split.classnames) for image in images])
        assert whole.shape == (len(images), len(split.classnames))
        assert whole.dtype == torch.float32
        assert torch.isfinite(whole).all()
        torch.testing.assert_close(whole, single, rtol=1e-4, atol=1e-4)


def check_packed_equals_plain(subject: Subject) -> None:
    """The packed text tower gives what the plain tower over all positions gives."""
    with subject.cli() as cli:
        method = cli.model
        subject.fit(cli)
        images, names = images_of(cli), method.classnames
        packed = scores(method, images, names)
        with plain.plain_text(method.backbone):
            expected = scores(method, images, names)
        torch.testing.assert_close(packed, expected, rtol=1e-4, atol=1e-4)


def check_refuses_towers_it_cannot_use(subject: Subject) -> None:
    """A backbone without a needed ability is refused by name before anything is loaded."""
    recipe = load_recipe(subject.recipe)
    with subject.cli() as cli:
        kind, needed = type(cli.model), cli.model.requires()
    for tower in needed:
        name = backbones.write_open_clip_only(subject.folder / f"foreign-{tower}", tower)
        arguments = dict(recipe.sections["model"].get("init_args") or {}) | {"backbone": name}
        with pytest.raises(BackboneError, match=f"(?s)(?=.*{kind.__name__})(?=.*{tower})"):
            kind(**arguments)


def check_bf16_stays_finite(subject: Subject) -> None:
    """Under bf16 autocast a step is finite and logits and trained tensors are float32."""
    with subject.cli(**{"trainer.precision": "bf16-mixed", "trainer.max_epochs": 1}) as cli:
        method = cli.model
        subject.fit(cli)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = scores(method, images_of(cli), method.classnames)
            with torch.no_grad():
                tested = method(images_of(cli), method.classnames)  # merged, as in a test
        assert logits.dtype == tested.dtype == torch.float32
        assert torch.isfinite(tested).all()
        for name, parameter in method.trainable.items():
            assert parameter.dtype == torch.float32
            assert torch.isfinite(parameter).all(), name


METHOD_CHECKS: tuple[Check, ...] = tuple(
    value
    for module in (vars(frozen), dict(globals()), vars(learned))
    for name, value in module.items()
    if name.startswith("check_")
)


def run_check(check: Check, recipe: str, folder: Path, **settings: Any) -> None:
    """Run one check on a recipe, unless its method is exempt (`Method.exempt`: name of the check to reason)."""
    subject = Subject(recipe, folder, settings=settings)
    if subject.exemption(check.__name__) is None:
        check(subject)
