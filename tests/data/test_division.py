"""The targets of a transfer: their classes and templates in the task, their images among the test loaders."""

from __future__ import annotations

import pickle
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from clipbench.data.cards import load_card
from clipbench.data.module import DataModule, FewShotDataModule, ImageFolder, Manifest
from clipbench.data.targets import KINDS
from clipbench.errors import ClipbenchError, ConfigError
from clipbench.recipes.suites import IMAGES

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


def photos(folder: Path) -> Path:
    for part in ("train", "test"):
        for number, name in enumerate("ab"):
            (folder / part / name).mkdir(parents=True)
            Image.new("RGB", (8, 8), (90 * number, len(folder.name), 0)).save(folder / part / name / f"{part}.png")
    return folder


def listed(folder: Path) -> Path:
    """The photos as a manifest."""
    lines = [f"{part}/{name}/{part}.png,{label},{name},{part}" for part in ("train", "test")
             for label, name in enumerate("ab")]  # fmt: skip
    (folder / "list.csv").write_text("\n".join(["path,label,classname,split", *lines]))
    return folder / "list.csv"


def targets_of(tmp_path: Path) -> dict[str, Any]:
    folder, manifest = photos(tmp_path / "mine"), listed(photos(tmp_path / "other"))
    return {
        "folder": {"class_path": "ImageFolder", "init_args": {"root": str(folder), "template": "a {} of mine."}},
        "manifest": {"class_path": "Manifest", "init_args": {"path": str(manifest)}},
        "dtd": "mini/dtd",
    }


def test_folders_and_manifests_are_targets_too(tmp_path: Path) -> None:
    data = module(targets=targets_of(tmp_path))
    assert data.count_tests() == {"source": 800, "folder": 2, "manifest": 2, "dtd": 480}
    shown = {split.name: (split.classnames, split.template) for split in data.task.tests}
    assert shown["folder"] == (("a", "b"), "a {} of mine.")
    assert shown["manifest"] == (("a", "b"), "a photo of a {}.")


@pytest.mark.parametrize("kind", [ImageFolder, Manifest])
def test_a_folder_or_manifest_is_a_source_too(kind: type[DataModule], tmp_path: Path) -> None:
    targets, folder = targets_of(tmp_path), photos(tmp_path / "source")
    data = kind(str(folder if kind is ImageFolder else listed(folder)), protocol="cross_dataset", targets=targets)
    assert [split.name for split in data.task.tests] == ["source", "folder", "manifest", "dtd"]
    assert data.task.train == ("a", "b")
    assert [int(batch.label.sum()) for loader in data.test_dataloader()[:3] for batch in loader] == [1, 1, 1]


def test_other_images_are_another_target(tmp_path: Path) -> None:
    targets = targets_of(tmp_path)
    first = module(targets=targets).target_fingerprints()
    (tmp_path / "other/test/a/test.png").write_bytes((tmp_path / "other/test/b/test.png").read_bytes())
    second = module(targets=targets).target_fingerprints()
    assert [first[name] == second[name] for name in targets] == [True, False, True]


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ({"class_path": "Nope"}, "unknown data module of target 'mine' 'Nope'"),
        ({"class_path": "ImageFolder"}, "target 'mine' of ImageFolder names no init_args.root"),
        ({"class_path": "ImageFolder", "init_args": {"root": "x", "rot": "y"}}, "setting of target 'mine' 'rot'"),
        ({"class_path": "ImageFolder", "init_args": {"root": 3}}, "root is text"),
        ({"class_path": "ImageFolder", "init_args": 3}, "init_args of target 'mine' is 3"),
        ({"class_path": "ImageFolder", "root": "x"}, "key of target 'mine' 'root'"),
        ({"class_path": "ImageFolder", "init_args": {"root": "nowhere"}}, "there is no folder 'nowhere'"),
    ],
)
def test_a_target_that_is_said_wrongly_is_a_sentence(target: dict[str, Any], says: str) -> None:
    with pytest.raises(ClipbenchError, match=says):
        module(targets={"mine": target}).task  # noqa: B018


def test_a_suite_hands_on_what_a_target_takes() -> None:
    """The reader of suites is light and names these settings itself: they are the fields of the targets."""
    assert {kind: {field.name for field in fields(target)} for kind, target in KINDS.items()} == {
        kind: set(names) for kind, names in IMAGES.items()
    }
