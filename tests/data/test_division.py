"""The targets of a transfer: their classes and templates in the task, their images among the test loaders."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from clipbench.data.cards import load_card
from clipbench.data.module import FewShotDataModule, ImageFolder
from clipbench.errors import ConfigError

TARGETS = {"dtd": "mini/dtd", "eurosat": "mini/eurosat"}


def module(**more: Any) -> FewShotDataModule:
    settings = {"shots": 1, "protocol": "cross_dataset", "targets": TARGETS} | more
    return FewShotDataModule("mini/imagenet", **settings)


def test_the_task_names_the_source_and_each_target_with_its_own_template() -> None:
    task, names = module().task, load_card("mini/imagenet").classnames
    assert (task.dataset, task.train) == ("imagenet", names)
    shown = [(split.name, split.classnames, split.trained, split.dataset, split.template) for split in task.tests]
    assert shown[0] == ("source", names, True, None, None)
    for found, card in zip(shown[1:], map(load_card, TARGETS.values()), strict=True):
        assert found == (card.key, card.classnames, False, card.key, card.template)
    assert task.halves is None


def test_the_loaders_hold_all_test_images_of_every_target() -> None:
    data = module()
    loaders = dict(zip(data.count_tests(), data.test_dataloader(), strict=True))
    assert list(loaders) == ["source", "dtd", "eurosat"]
    for name, card in TARGETS.items():
        alone = FewShotDataModule(card, protocol="few_shot").test_dataloader()[0]
        for ours, theirs in zip(loaders[name], alone, strict=True):
            assert torch.equal(ours.image, theirs.image)
            assert torch.equal(ours.label, theirs.label)
            assert ours.split == name


def test_what_identifies_the_targets_does_not_follow_the_seed() -> None:
    first, second = (module(seed=seed, shots=shots).target_fingerprints() for seed, shots in ((1, 1), (2, 4)))
    assert first.keys() == TARGETS.keys()
    assert first == second
    assert first["dtd"]["split_hash"] == FewShotDataModule("mini/dtd").fingerprint()["split_hash"]


def test_it_is_pickled_with_its_targets() -> None:
    data = module()
    task = data.task
    assert pickle.loads(pickle.dumps(data)).task == task


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"targets": {"again": "mini/imagenet"}}, "'again' is trained on as 'mini/imagenet'"),
        ({"targets": {"source": "mini/dtd"}}, "a target cannot be called 'source'"),
        ({"targets": None}, "protocol cross_dataset needs data.targets"),
        ({"targets": {}}, "protocol cross_dataset needs data.targets"),
        ({"protocol": "few_shot"}, "protocol few_shot has no targets"),
        ({"targets": {"dtd": "mini/dtdd"}}, "did you mean 'mini/dtd'"),
    ],
)
def test_targets_that_are_none(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        module(**settings).task  # noqa: B018


def test_a_folder_of_ones_own_has_no_targets(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for number, name in enumerate("ab"):
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / part / name / f"{part}.png")
    with pytest.raises(ConfigError, match=r"needs data\.targets, which FewShotDataModule takes"):
        ImageFolder(str(tmp_path), protocol="cross_dataset").task  # noqa: B018
