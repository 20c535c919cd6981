"""What every method must hold of what it learned: where it starts, how it is stored, copied, merged and weakened."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import pytest
import torch

from clipbench.errors import MethodError
from clipbench.methods.base import Method
from clipbench.methods.weights_file import read_header, read_learned
from clipbench.testing.subject import Subject, images_of, pretrained_logits, scores


def check_starts_at_zero_shot(subject: Subject) -> None:
    """Untrained and without a start, the logits are zero-shot's with "a photo of a {}."."""
    plainest = replace(subject, dataset="caltech101")  # its template is "a photo of a {}."
    with plainest.cli() as cli:
        method = cli.model
        if method.start is not None:
            return
        images, names = images_of(cli), method.classnames
        with torch.no_grad():
            zero_shot = pretrained_logits(method, images, names)
        torch.testing.assert_close(
            scores(method, images, names), zero_shot, rtol=1e-4, atol=1e-4, msg=lambda difference: (
                f"untrained, {type(method).__name__} is not zero-shot with the templates {method.templates}; if it is "
                f"not meant to be, say why in its `exempt`. {difference}"
            ),
        )  # fmt: skip


def check_saved_and_loaded_gives_the_same_logits(subject: Subject) -> None:
    """What was learned, saved and loaded into a fresh method, gives the same logits for trained and other classes."""
    path = subject.folder / "weights.safetensors"
    with subject.cli() as cli:
        method = cli.model
        if not method.learns:
            return
        subject.fit(cli)
        images = images_of(cli)
        tests = cli.datamodule.task.tests
        lists = [method.classnames] if method.novel_rule == "frozen" else [split.classnames for split in tests]
        before = [scores(method, images, names) for names in lists]
        size = method.save(path)
        learned = {**method.trainable, **method.adapter_state_dict()}
        numbers = sum(tensor.numel() for tensor in (*learned.values(), *method.weights.start.values()))
        assert size == path.stat().st_size
        assert size < 4 * numbers + 200 * (len(learned) + len(method.weights.start)) + 40_000, (
            "the file holds more than what was learned"
        )
    with subject.cli() as cli:
        cli.model.setup(learned=read_learned(path))
        for names, expected in zip(lists, before, strict=True):
            assert torch.equal(scores(cli.model, images, names), expected)
    assert torch.equal(scores(Method.load(path), images, lists[0]), before[0])
    assert read_header(path).classnames == list(lists[0])


def check_pickled_gives_the_same_logits(subject: Subject) -> None:
    """A fitted method that is pickled or copied holds what it learned and gives the same logits."""
    with subject.cli() as cli:
        method = cli.model
        subject.fit(cli)
        batch = next(iter(cli.datamodule.test_dataloader()[0]))
        method.eval()
        with torch.no_grad():
            logits = method(batch.image[:8])
            held = pickle.dumps(method)
            for twin in (pickle.loads(held), copy.deepcopy(method)):  # noqa: S301
                assert torch.equal(twin(batch.image[:8]), logits)
        learned = (*method.adapter_state_dict().values(), *method.weights.start.values())
        assert len(held) < sum(tensor.nbytes for tensor in learned) + 400 * len(learned) + 60_000


def check_merged_equals_unmerged(subject: Subject) -> None:
    """What can be written into plain Linears for inference gives the same logits there."""
    with subject.cli() as cli:
        method = cli.model
        subject.fit(cli)
        method.eval()
        images, names = images_of(cli), method.classnames
        apart = scores(method, images, names)
        with method.backbone.merged():
            together = scores(method, images, names)
        torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)
        assert torch.equal(scores(method, images, names), apart)


def check_goes_back_to_where_it_began(subject: Subject) -> None:
    """Interpolated by 1 nothing changes; by 0 the logits are zero-shot's, or those before training where these do not
    depend on the seed. A method that begins elsewhere has no way back (`Method.interpolates`)."""
    with subject.cli() as cli:
        method = cli.model.eval()
        images, names = images_of(cli), method.classnames
        if not method.interpolates:
            with torch.no_grad():
                away = (scores(method, images, names) - pretrained_logits(method, images, names)).abs().max()
            assert away > 1e-3, "interpolates = False, but untrained it is zero-shot: there is a way back"
            with pytest.raises(MethodError, match="there is no way back"):
                method.weights.interpolate(0.5)
            return
        with torch.no_grad():
            if method.start is not None or method.backbone.replaced:
                before = pretrained_logits(method, images, names)
            else:
                before = scores(method, images, names)
                method.setup(task=cli.datamodule.task, train_seed=2)
                assert torch.equal(scores(method, images, names), before), (
                    f"untrained, the logits of {type(method).__name__} depend on the seed: there is no way back to the "
                    "pretrained model, which it says by interpolates = False"
                )
        subject.fit(cli)
        method.eval()
        learned = scores(method, images, names)
        method.weights.interpolate(1.0)
        torch.testing.assert_close(scores(method, images, names), learned, rtol=1e-4, atol=1e-4)
        method.weights.interpolate(0.0)
        torch.testing.assert_close(
            scores(method, images, names), before, rtol=1e-4, atol=1e-4,
            msg=lambda text: f"interpolated by 0 it is not where it began (random: interpolates = False): {text}",
        )  # fmt: skip
