"""Data modules: draws of the classes trained on, loaders keyed by seeds alone, test images out of reach of fit."""

from __future__ import annotations

import copy
import gc
import io
import json
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from PIL import Image

from clipbench.data import images
from clipbench.data.augmentation import ImagePolicy, augmented_image, plain_image
from clipbench.data.cards import load_card
from clipbench.data.draw import digest, draw
from clipbench.data.module import Batch, DataModule, FewShotDataModule, ImageFolder, Manifest
from clipbench.errors import ConfigError, DataError, UnknownName
from clipbench.testing.cards import fake_tree

SMALL = SimpleNamespace(size=24, interpolation="bicubic", resize_mode="shortest")
CLASSES = ("red_ball", "blue ball", "cube", "cone", "ring")


@pytest.fixture(autouse=True, scope="module")
def _short_goodbye() -> Iterator[None]:
    """After an error in a worker torch waits five seconds for its end, whenever the garbage is collected."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)
        yield
        gc.collect()


@pytest.fixture(autouse=True)
def _only_latest_images() -> Iterator[None]:
    yield
    images._last_kept = None


def jpeg(path: Path, number: int, side: int = 30) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(number).integers(0, 256, (side, side + number % 7, 3), dtype=np.uint8)
    Image.fromarray(values).save(path, quality=90)


@pytest.fixture(scope="session")
def zhou(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A card and a data root in the layout of the real datasets: five classes of 7 train, 3 val and 4 test images."""
    root = tmp_path_factory.mktemp("root")
    parts: dict[str, list] = {"train": [], "val": [], "test": []}
    number = 0
    for part, each in (("train", 7), ("val", 3), ("test", 4)):
        for label in (2, 0, 1, 4, 3):  # not in label order, as in two of the real ones
            for index in range(each):
                path = f"{CLASSES[label].replace(' ', '_')}/{part}{index}.jpg"
                jpeg(root / "toys" / "images" / path, number)
                parts[part].append([path, label, CLASSES[label]])
                number += 1
    (root / "toys" / "split.json").write_text(json.dumps(parts, indent=4, separators=(",", ": ")))
    card = {
        "key": "toys", "suite": "toys", "title": "Toys", "published_name": "Toys", "reader": "zhou_json",
        "description": "Noise.", "licence": "none", "citation": "none", "sources": [], "folder": "toys",
        "image_root": "images", "split_file": "split.json", "classnames": list(CLASSES),
        "counts": {"classes": 5, "base": 3, "novel": 2, "train": 35, "val": 15, "test": 20},
    }  # fmt: skip
    (root / "toys.yaml").write_text(yaml.safe_dump(card))
    return str(root / "toys.yaml"), root


def toys(zhou: tuple[str, Path], **arguments: object) -> FewShotDataModule:
    """Trained on classes 0, 1 and 2, tested on these and on 3 and 4."""
    data = FewShotDataModule(zhou[0], str(zhou[1]), **{"shots": 4, **arguments})  # type: ignore[arg-type]
    data.preprocessing = SMALL
    return data


class Recorder(L.LightningModule):
    """Trains nothing that matters and remembers which images it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.automatic_optimization = True
        self.seen: list[tuple[int, list[int], int]] = []

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        self.seen.append((self.current_epoch, batch.index.tolist(), int(batch.image.long().sum())))
        return self.weight * 0

    def validation_step(self, batch: Batch, _: int) -> None:
        self.seen.append((-1, batch.index.tolist(), 0))

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.seen.append((dataloader_idx, batch.label.tolist(), 0))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def trainer(**arguments: object) -> L.Trainer:
    warnings.filterwarnings("ignore", message=".*does not have many workers.*|.*logging interval.*")
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return L.Trainer(**{"accelerator": "cpu", "max_epochs": 2, "num_sanity_val_steps": 0, **quiet, **arguments})


# The draw, restricted


def test_the_base_draw_is_the_draw_over_all_classes_restricted_in_order(zhou: tuple[str, Path]) -> None:
    data = toys(zhou, seed=3)
    whole = draw(data.split, 4, 3)
    assert digest(data.draw.train) == digest(whole.train)
    drawn = data.train_images()
    assert list(drawn.items) == [item for item in whole.train if item.label in (0, 1, 2)]
    assert drawn.labels.tolist() == [item.label for item in drawn.items]
    assert [item.label for item in drawn.items[::4]] == [2, 0, 1], "the order of the file, not of the labels"
    assert [item.path for item in data.val_images().items] == [item.path for item in whole.val if item.label < 3]


def test_labels_are_counted_inside_each_split(zhou: tuple[str, Path]) -> None:
    base, novel = toys(zhou).test_dataloader()
    assert [len(base.dataset), len(novel.dataset)] == [12, 8]
    assert next(iter(novel)).label.tolist() == [1] * 4 + [0] * 4  # the file has class 4 before class 3
    assert next(iter(base)).label.tolist() == [2] * 4 + [0] * 4 + [1] * 4
    assert next(iter(base)).index.tolist() == list(range(12))


def test_few_shot_trains_and_tests_all_classes(zhou: tuple[str, Path]) -> None:
    data = toys(zhou, protocol="few_shot")
    assert data.classnames == CLASSES
    assert (data.train_labels, data.tests) == ((0, 1, 2, 3, 4), {"all": (0, 1, 2, 3, 4)})
    assert len(data.train_images()) == 20
    assert [len(loader.dataset) for loader in data.test_dataloader()] == [20]


def test_more_shots_than_a_class_has_take_all_of_it(zhou: tuple[str, Path]) -> None:
    data = toys(zhou, shots=16, protocol="few_shot")
    assert sorted(data.train_images().items) == sorted(data.split.train)
    assert len(data.val_images()) == 15


def test_one_seed_drives_both_and_each_can_be_given(zhou: tuple[str, Path]) -> None:
    assert [(d.split_seed, d.train_seed) for d in (toys(zhou, seed=3), toys(zhou, seed=3, split_seed=1))] == [
        (3, 3),
        (1, 3),
    ]
    first, second = toys(zhou, split_seed=1, train_seed=2), toys(zhou, split_seed=1, train_seed=5)
    assert first.train_images().items == second.train_images().items
    assert [b.index.tolist() for b in first.train_dataloader()] != [b.index.tolist() for b in second.train_dataloader()]


@pytest.mark.parametrize("name", ["seed", "split_seed", "train_seed"])
def test_a_seed_is_one_that_learned_weights_can_state(zhou: tuple[str, Path], name: str) -> None:
    toys(zhou, **{name: 2**63 - 1})
    with pytest.raises(ConfigError, match=rf"data\.{name} must be at most 9223372036854775807"):
        toys(zhou, **{name: 2**63})


# Loaders


def test_a_train_batch_is_the_keyed_crops_in_the_keyed_order(zhou: tuple[str, Path]) -> None:
    data = toys(zhou, seed=2, batch_size=5, crop_scale=(0.5, 1.0))
    loader = data.train_dataloader()
    loader.batch_sampler.set_epoch(7)
    batches = list(loader)
    assert [tuple(batch.image.shape) for batch in batches] == [(5, 3, 24, 24)] * 2, "12 images: a batch of 2 is dropped"
    assert batches[0].image.dtype == torch.uint8
    assert batches[0].label.dtype == batches[0].index.dtype == torch.int64
    policy = ImagePolicy(crop_scale=(0.5, 1.0), crop_ratio=(0.75, 1.3333333333333333), size=24)
    drawn = data.train_images()
    for position, label, image in zip(batches[1].index, batches[1].label, batches[1].image, strict=True):
        path = drawn.items[position].path
        pixels = images.decode(zhou[1] / "toys" / "images" / path)
        np.testing.assert_array_equal(image.numpy(), augmented_image(pixels, policy, 2, "toys", path, 7))
        assert drawn.labels[position] == label


def test_other_crops_of_the_same_step_can_be_asked_for(zhou: tuple[str, Path]) -> None:
    drawn = toys(zhou).train_images()
    first, second = drawn.batch([(0, 1), (3, 1)]), drawn.batch([(0, 1), (3, 1)], number=1)
    assert torch.equal(first.index, second.index)
    assert not torch.equal(first.image, second.image)


def test_test_batches_are_plain_images_in_file_order(zhou: tuple[str, Path]) -> None:
    data = toys(zhou, test_batch_size=8)
    _, novel = data.test_dataloader()
    (batch,) = list(novel)
    item = novel.dataset.items[3]
    expected = plain_image(images.decode(zhou[1] / "toys" / "images" / item.path), ImagePolicy(size=24))
    np.testing.assert_array_equal(batch.image[3].numpy(), expected)


def test_val_and_test_give_every_image_in_order_a_short_last_batch_too(zhou: tuple[str, Path]) -> None:
    data = toys(zhou, test_batch_size=5)
    base, _ = data.test_dataloader()
    for loader, images_ in ((data.val_dataloader(), 9), (data.draw_dataloader(), 12), (base, 12)):
        assert [position for batch in loader for position in batch.index.tolist()] == list(range(images_))
        assert len(loader) == -(-images_ // 5)


def test_workers_give_the_same_batches_in_every_epoch(zhou: tuple[str, Path]) -> None:
    epochs = []
    for workers in (0, 2):
        data = toys(zhou, batch_size=4, num_workers=workers)
        data.setup("fit")
        loader = data.train_dataloader()
        seen = []
        for epoch in (0, 1, 2):  # the workers live on between the epochs
            loader.batch_sampler.set_epoch(epoch)
            seen += [(*(field.numpy().tobytes() for field in batch[:3]), batch.split) for batch in loader]
        seen += [batch.image.numpy().tobytes() for batch in data.test_dataloader()[1]]
        epochs.append(seen)
    assert epochs[0] == epochs[1]
    assert len(set(epochs[0])) == len(epochs[0])


def test_lightning_counts_the_epochs_for_the_order_and_the_augmentation(zhou: tuple[str, Path]) -> None:
    data, model = toys(zhou, batch_size=4), Recorder()
    trainer(limit_val_batches=0).fit(model, datamodule=data)
    expected = []
    loader = data.train_dataloader()
    for epoch in (0, 1):
        loader.batch_sampler.set_epoch(epoch)
        expected += [(epoch, batch.index.tolist(), int(batch.image.long().sum())) for batch in loader]
    assert model.seen == expected
    assert expected[0][1] != expected[3][1]


def test_loaders_take_nothing_from_the_global_generators(zhou: tuple[str, Path]) -> None:
    data = toys(zhou)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    list(data.train_dataloader())
    list(data.test_dataloader()[0])
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)


def test_val_is_the_few_shot_val_draw_and_empty_where_there_is_none(zhou: tuple[str, Path], tmp_path: Path) -> None:
    data, model = toys(zhou), Recorder()
    trainer(max_epochs=1).fit(model, datamodule=data)
    assert [seen for seen in model.seen if seen[0] == -1] == [(-1, list(range(9)), 0)]
    without = Manifest(str(manifest(tmp_path)), protocol="few_shot")
    without.preprocessing = SMALL
    assert list(without.val_dataloader()) == []
    trainer(max_epochs=1).fit(Recorder(), datamodule=without)


def test_what_a_fit_sees_of_val_is_counted(zhou: tuple[str, Path], tmp_path: Path) -> None:
    class Choosing(Recorder):
        def on_train_epoch_end(self) -> None:
            list(self.trainer.datamodule.val_dataloader())

    data, blind = toys(zhou), trainer(limit_val_batches=0, max_epochs=1)
    list(data.val_dataloader())
    blind.fit(Recorder(), datamodule=data)
    blind.test(Recorder(), datamodule=data, verbose=False)
    assert data.val_images_seen == 0, "nobody asked for them in a fit"
    trainer(limit_val_batches=0, max_epochs=1).fit(Choosing(), datamodule=data)
    assert data.val_images_seen == 9
    without = Manifest(str(manifest(tmp_path)), protocol="few_shot")
    without.preprocessing = SMALL
    trainer(limit_val_batches=0, max_epochs=1).fit(Choosing(), datamodule=without)
    assert without.val_images_seen == 0, "there are none"


# Test images and fit


def test_test_loaders_cannot_be_opened_during_fit(zhou: tuple[str, Path]) -> None:
    class Curious(Recorder):
        def on_train_epoch_end(self) -> None:
            self.trainer.datamodule.test_dataloader()

    with pytest.raises(DataError, match="test images of 'toys' cannot be opened during fit"):
        trainer(limit_val_batches=0).fit(Curious(), datamodule=toys(zhou))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_test_loader_opened_before_fit_is_closed_during_fit(zhou: tuple[str, Path], workers: int) -> None:
    data = toys(zhou, num_workers=workers)
    loader = data.test_dataloader()[0]

    class Curious(Recorder):
        def on_train_epoch_end(self) -> None:
            next(iter(loader))

    with pytest.raises(DataError, match="test images cannot be opened during fit"):
        trainer(limit_val_batches=0).fit(Curious(), datamodule=data)


def test_fit_opens_no_test_image_and_test_opens_each_once(
    zhou: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    plain = images.decode
    monkeypatch.setattr(images, "decode", lambda path: opened.append(Path(path).name) or plain(path))
    data, model = toys(zhou), Recorder()
    data.fingerprint()
    assert (data.classnames, data.templates("coop"), opened) == (CLASSES, ("a photo of a {}.",), [])
    one = trainer()
    one.fit(model, datamodule=data)
    assert sorted(set(opened)) == sorted({name for name in opened if name.startswith(("train", "val"))})
    assert len([name for name in opened if name.startswith("train")]) == 12, "each few-shot image is decoded once"
    opened.clear()
    one.test(model, datamodule=data, verbose=False)
    assert len(opened) == 20
    assert all(name.startswith("test") for name in opened)
    data.test_dataloader()  # fit is over


def test_the_next_cell_does_not_decode_again(zhou: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    toys(zhou, seed=2).setup("fit")
    monkeypatch.setattr(images, "decode", lambda path: pytest.fail("decoded again"))
    toys(zhou, seed=2, train_seed=9).setup("fit")


def test_val_images_are_drawn_not_all_and_test_images_are_not_kept(zhou: tuple[str, Path]) -> None:
    data = toys(zhou, shots=2)
    assert len(data.val_images()) == 6, "two of the three of each class"
    (base, _) = data.test_dataloader()
    list(base)
    assert base.dataset.pixels._kept == {}
    train = data.train_images().pixels
    _ = train[0]
    assert list(train._kept) == [0]


# Real layouts


@pytest.mark.parametrize(("name", "classes"), [("eurosat", 10), ("fgvc_aircraft", 100), ("oxford_flowers", 102)])
def test_a_real_layout_is_trained_and_tested(
    name: str, classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = fake_tree(load_card(name), tmp_path, (2, 1, 1))
    monkeypatch.setattr("clipbench.data.sources.load_card", lambda _: card)
    data = FewShotDataModule(name, str(tmp_path), shots=1, test_batch_size=500)
    data.preprocessing = SMALL
    half = classes // 2
    model, one = Recorder(), trainer(max_epochs=1)
    one.fit(model, datamodule=data)
    model.seen.clear()
    one.test(model, datamodule=data, verbose=False)
    assert [(loader, sorted(labels)) for loader, labels, _ in model.seen] == [
        (0, list(range(half))),
        (1, list(range(half))),
    ]


def test_a_dataset_without_train_images_is_tested_but_not_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = fake_tree(load_card("imagenet_a"), tmp_path, (0, 0, 1))
    monkeypatch.setattr("clipbench.data.sources.load_card", lambda _: card)
    data = FewShotDataModule("imagenet_a", str(tmp_path), protocol="few_shot")
    data.preprocessing = SMALL
    data.setup("test")
    assert len(data.fingerprint()["draw_digest"]) == 64
    assert len(data.test_dataloader()[0].dataset) == 200
    with pytest.raises(DataError, match="'imagenet_a' has no train image of 200 of 200 classes"):
        data.setup("fit")


# Fingerprint and augmentation


def test_the_fingerprint_speaks_of_split_draw_and_file_sizes(tmp_path: Path) -> None:
    path = manifest(tmp_path)
    first = Manifest(str(path)).fingerprint()
    assert set(first) == {"split_hash", "draw_digest", "files_digest"}
    assert Manifest(str(path)).fingerprint() == first
    other_draw = Manifest(str(path), shots=2, seed=9).fingerprint()
    assert other_draw["split_hash"] == first["split_hash"]
    assert other_draw["draw_digest"] != first["draw_digest"]
    jpeg(tmp_path / "a" / "test0.jpg", 99, side=44)
    changed = Manifest(str(path)).fingerprint()
    assert changed["files_digest"] != first["files_digest"]
    assert changed["split_hash"] == first["split_hash"]


def test_the_fingerprint_of_the_embedded_suite_needs_no_rendered_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPBENCH_CACHE", str(tmp_path))
    first = FewShotDataModule("mini/dtd").fingerprint()
    assert list(tmp_path.iterdir()) == []
    assert first["files_digest"] != FewShotDataModule("mini/eurosat").fingerprint()["files_digest"]


def test_what_a_plan_needs_is_known_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from clipbench.data.sources import card_source, manifest_source\n"
        f"print(manifest_source({str(manifest(tmp_path))!r}).fingerprint()['split_hash'])\n"
        "assert card_source('mini/dtd').draw.train and 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == Manifest(str(tmp_path / "list.csv")).fingerprint()["split_hash"]


def test_cells_of_one_process_share_a_split_until_its_files_change(zhou: tuple[str, Path]) -> None:
    first = toys(zhou, seed=1).split
    assert toys(zhou, seed=2).split is first
    file = zhou[1] / "toys" / "split.json"
    os.utime(file, ns=(1, 1))
    assert toys(zhou).split is not first


def test_the_cards_augmentation_wins_over_the_arguments(zhou: tuple[str, Path]) -> None:
    asked = {"crop_scale": (0.5, 1.0), "crop_ratio": (0.9, 1.1), "flip": 0.0}
    mini = FewShotDataModule("mini/eurosat", **asked)  # type: ignore[arg-type]
    assert mini.augmentation == {
        "crop_scale": [0.8, 1.0],
        "crop_ratio": [0.9, 1.1],
        "flip": mini.card.augmentation.get("flip", 0.0),
    }
    assert toys(zhou, **asked).augmentation == {"crop_scale": [0.5, 1.0], "crop_ratio": [0.9, 1.1], "flip": 0.0}


@pytest.mark.parametrize(
    "wrong", [{"shots": 0}, {"batch_size": 0}, {"num_workers": -1}, {"crop_scale": (0.9, 0.1)}, {"flip": 2.0}]
)
def test_impossible_arguments_are_refused_at_once(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        FewShotDataModule("mini/eurosat", **wrong)


def test_an_unknown_dataset_gets_the_nearest_name() -> None:
    with pytest.raises(UnknownName, match="did you mean 'mini/eurosat'"):
        _ = FewShotDataModule("mini/eurosta").classnames


def test_mini_images_carry_their_own_labels() -> None:
    """Rows of the rendered array and items of the split must be about the same pictures."""
    from clipbench.mini.images import load_images

    data = FewShotDataModule("mini/eurosat", shots=2, test_batch_size=1000)
    data.setup("fit")
    _, loader = data.test_dataloader()
    batch = next(iter(loader))
    array, each = load_images("mini/eurosat", "test"), data.card.counts["test"] // 10
    assert batch.label.tolist() == [label for label in range(5) for _ in range(each)]
    np.testing.assert_array_equal(batch.image[each + 5].numpy(), array[6 * each + 5].transpose(2, 0, 1))
    drawn = data.train_images()
    item = drawn.items[3]
    row = item.label * data.card.counts["train"] // 10 + int(item.path[-6:-4])
    np.testing.assert_array_equal(drawn.pixels[3], load_images("mini/eurosat", "train")[row])


# Missing and damaged data


def test_missing_images_are_all_named_before_any_work(zhou: tuple[str, Path], tmp_path: Path) -> None:
    data = FewShotDataModule(zhou[0], str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="nowhere"):
        data.prepare()
    with pytest.raises(DataError, match="nowhere"):
        data.setup("fit")


def test_an_empty_test_image_is_found_before_training(tmp_path: Path) -> None:
    path = manifest(tmp_path)
    (tmp_path / "b" / "test1.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"(?s)1 images of .* cannot be used.*test1\.jpg: the file is empty"):
        Manifest(str(path)).setup("fit")


def damage(path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, "JPEG")
    path.write_bytes(buffer.getvalue()[: buffer.tell() // 2])


def test_damaged_few_shot_images_are_all_named_before_training(tmp_path: Path) -> None:
    path = manifest(tmp_path)
    damage(tmp_path / "a" / "train0.jpg")
    damage(tmp_path / "b" / "train2.jpg")
    data = Manifest(str(path), protocol="few_shot")
    with pytest.raises(DataError, match="2 images of 'own/list' cannot be used") as caught:
        data.setup("fit")
    assert "train0.jpg: cannot be decoded" in str(caught.value)
    assert "train2.jpg: cannot be decoded" in str(caught.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_test_images_are_counted_and_named_in_one_sentence(tmp_path: Path, workers: int) -> None:
    path = manifest(tmp_path)
    damage(tmp_path / "a" / "test1.jpg")
    damage(tmp_path / "c" / "test0.jpg")
    data = Manifest(str(path), test_batch_size=2, num_workers=workers, protocol="few_shot")
    data.preprocessing = SMALL
    with pytest.raises(DataError, match=r"^2 of 6 images cannot be used") as caught:
        list(data.test_dataloader()[0])
    assert "test1.jpg" in str(caught.value)
    assert "test0.jpg" in str(caught.value)
    assert "Traceback" not in str(caught.value)


# A user's own images, without code


def manifest(folder: Path, draws: str = "") -> Path:
    """Three classes of three train and two test images."""
    lines = ["path,label,classname,split" + (",draws" if draws else "")]
    for label, name in enumerate("abc"):
        for part, each in (("train", 3), ("test", 2)):
            for index in range(each):
                jpeg(folder / name / f"{part}{index}.jpg", 100 * label + index)
                marked = draws if part == "train" and index else ""
                lines.append(f"{name}/{part}{index}.jpg,{label},{name},{part}" + (f",{marked}" if draws else ""))
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    return folder / "list.csv"


def test_a_manifests_draws_are_used_for_their_seeds(tmp_path: Path) -> None:
    path = str(manifest(tmp_path, draws="1 3"))
    assert [item.path[-5] for item in Manifest(path, seed=3).draw.train] == ["1", "2"] * 3
    assert len(Manifest(path, seed=2).draw.train) == 9


def test_a_manifest_may_lie_elsewhere_than_its_images(tmp_path: Path) -> None:
    path = manifest(tmp_path / "images")
    (tmp_path / "mine.csv").write_text(path.read_text())
    data = Manifest(str(tmp_path / "mine.csv"), root=str(tmp_path / "images"))
    data.preprocessing = SMALL
    data.setup("fit")
    assert (data.dataset, data.suite, data.classnames) == ("mine", "own", ("a", "b", "c"))
    assert [len(next(iter(loader)).label) for loader in data.test_dataloader()] == [4, 2]
    with pytest.raises(DataError, match="15 images do not exist below"):
        _ = Manifest(str(tmp_path / "mine.csv")).classnames


def parse(*arguments: str) -> DataModule:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(DataModule, "data")
    return parser.instantiate(parser.parse_args(list(arguments))).data


def test_a_folder_of_images_is_a_dataset_from_the_command_line(tmp_path: Path) -> None:
    for number in range(80):
        jpeg(tmp_path / "photos" / CLASSES[number % 4] / f"{number}.jpg", number)
    data = parse("--data", "ImageFolder", "--data.root", str(tmp_path / "photos"), "--data.split", "0.5,0.2,0.3")
    assert isinstance(data, ImageFolder)
    data.preprocessing = SMALL
    assert data.classnames == tuple(sorted(CLASSES[:4]))
    assert data.templates("clipfit") == ("a photo of a {}.",)
    assert [len(part) for part in (data.split.train, data.split.val, data.split.test)] == [40, 16, 24]
    again = parse("--data", "ImageFolder", "--data.root", str(tmp_path / "photos"), "--data.split", "[0.5, 0.2, 0.3]",
                  "--data.seed", "2")  # fmt: skip
    assert again.split == data.split, "one division, several draws"
    model = Recorder()
    one = trainer(max_epochs=1)
    one.fit(model, datamodule=data)
    model.seen.clear()
    one.test(model, datamodule=data, verbose=False)
    assert [loader for loader, _, _ in model.seen] == [0, 1]


def test_a_folder_that_is_divided_already_and_one_that_is_no_dataset(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for number in range(4):
            jpeg(tmp_path / "photos" / part / "xy"[number % 2] / f"{number}.jpg", number)
    data = ImageFolder(str(tmp_path / "photos"), shots=1, protocol="few_shot")
    data.preprocessing = SMALL
    data.setup("fit")
    assert len(data.train_images()) == 2
    assert len(data.val_images()) == 0
    with pytest.raises(DataError, match="there is no folder"):
        _ = ImageFolder(str(tmp_path / "photo")).classnames


def test_arguments_are_typed_and_unknown_ones_refused(tmp_path: Path) -> None:
    data = parse("--data", "FewShotDataModule", "--data.dataset", "mini/dtd", "--data.crop_scale", "[0.5, 0.9]")
    assert isinstance(data, FewShotDataModule)
    assert data.dataset == "dtd"
    for wrong in (("--data.shotz", "4"), ("--data.shots", "four")):
        with pytest.raises(Exception, match="shot"):
            parse("--data", "FewShotDataModule", *wrong)


def test_every_argument_is_documented() -> None:
    import inspect

    for kind in (FewShotDataModule, ImageFolder, Manifest):
        for name in list(inspect.signature(kind).parameters):
            assert f"{name}: " in (kind.__doc__ or ""), f"{kind.__name__}.{name}"


def test_real_images(shared: Path) -> None:
    """EuroSAT: the manifest's draws equal the published ones, the labels are right, an epoch has two batches."""
    data = Manifest(str(shared / "real" / "eurosat" / "manifest.csv"), seed=2)
    data.preprocessing = SimpleNamespace(size=64, interpolation="bicubic", resize_mode="shortest")
    data.setup("fit")
    drawn = data.train_images()
    assert len(drawn) == 80
    assert np.bincount(drawn.labels).tolist() == [16] * 5
    loader = data.train_dataloader()
    assert [len(batch.label) for batch in loader] == [32, 32]
    base, novel = data.test_dataloader()
    assert (len(base.dataset), len(novel.dataset)) == (250, 250)
    image = Image.open(shared / "real" / "eurosat" / novel.dataset.items[0].path).convert("RGB")
    np.testing.assert_array_equal(next(iter(novel)).image[0].numpy(), np.asarray(image).transpose(2, 0, 1))


# Alone, in a trainer, in another process


class Prepared(Recorder):
    """A method that says how images are prepared for its backbone."""

    preprocessing = SMALL

    def __init__(self) -> None:
        super().__init__()
        self.splits: list[tuple[str, int, int]] = []

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        self.note(batch)
        return self.weight * 0

    def validation_step(self, batch: Batch, _: int) -> None:
        self.note(batch)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.note(batch)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> int:
        self.note(batch)
        return len(batch.label)

    def note(self, batch: Batch) -> None:
        assert isinstance(batch, Batch)
        self.splits.append((batch.split, len(batch.label), batch.image.shape[-1]))


@pytest.mark.parametrize(("dataset", "size"), [("mini/eurosat", 48), ("toys", 224)])
def test_a_data_module_works_alone_with_the_backbone_of_its_suite(
    zhou: tuple[str, Path], dataset: str, size: int
) -> None:
    where = (dataset,) if "/" in dataset else tuple(map(str, zhou))
    data = FewShotDataModule(*where, shots=4, test_batch_size=8)
    data.setup("fit")
    assert tuple(next(iter(data.train_dataloader())).image.shape)[1:] == (3, size, size)
    assert tuple(next(iter(data.val_dataloader())).image.shape)[1:] == (3, size, size)
    assert tuple(next(iter(data.test_dataloader()[1])).image.shape)[1:] == (3, size, size)


def test_in_a_trainer_the_method_says_the_size_unless_it_was_told(zhou: tuple[str, Path]) -> None:
    data, method = FewShotDataModule(*map(str, zhou), shots=4), Prepared()
    trainer(max_epochs=1).fit(method, datamodule=data)
    assert {size for _, _, size in method.splits} == {24}
    shown, other = FewShotDataModule(*map(str, zhou), shots=4), Prepared()
    shown.preprocessing = SimpleNamespace(size=16, interpolation="bicubic", resize_mode="shortest")
    trainer(max_epochs=1).fit(other, datamodule=shown)
    assert {size for _, _, size in other.splits} == {16}


@pytest.mark.parametrize("workers", [0, 1])
def test_every_batch_says_its_split_in_fit_test_and_predict(zhou: tuple[str, Path], workers: int) -> None:
    data, method = toys(zhou, batch_size=12, num_workers=workers), Prepared()
    one = trainer(max_epochs=1)
    one.fit(method, datamodule=data)
    assert [(split, length) for split, length, _ in method.splits] == [("train", 12), ("val", 9)]
    method.splits.clear()
    one.test(method, datamodule=data, verbose=False)
    assert [(split, length) for split, length, _ in method.splits] == [("base", 12), ("novel", 8)]
    method.splits.clear()
    assert one.predict(method, datamodule=data) == [[12], [8]], "the test images"
    assert [split for split, _, _ in method.splits] == ["base", "novel"]
    assert next(iter(data.draw_dataloader())).split == "train"


def test_a_batch_survives_the_way_to_a_device_and_pinning(zhou: tuple[str, Path]) -> None:
    from lightning.fabric.utilities.apply_func import move_data_to_device

    batch = next(iter(toys(zhou).test_dataloader()[1]))
    moved = move_data_to_device(batch, torch.device("meta"))
    assert isinstance(moved, Batch)
    assert (moved.split, moved.image.device.type, moved.label.device.type) == ("novel", "meta", "meta")


def test_predict_is_closed_during_fit_like_test(zhou: tuple[str, Path]) -> None:
    class Curious(Recorder):
        def on_train_epoch_end(self) -> None:
            self.trainer.datamodule.predict_dataloader()

    with pytest.raises(DataError, match="test images of 'toys' cannot be opened during fit"):
        trainer(limit_val_batches=0).fit(Curious(), datamodule=toys(zhou))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda data: pickle.loads(pickle.dumps(data))])
def test_a_data_module_can_be_copied_at_any_time(zhou: tuple[str, Path], copied: Callable) -> None:
    def batches(data: DataModule) -> list[bytes]:
        return [batch.image.numpy().tobytes() for batch in data.train_dataloader()]

    data = toys(zhou, protocol="base_to_novel", seed=2)
    twins = [copied(data)]
    expected = batches(data)
    data.setup("fit")
    twins.append(copied(data))

    class Copies(Recorder):
        def on_train_epoch_end(self) -> None:
            twins.append(copied(self.trainer.datamodule))

    trainer(max_epochs=1, limit_val_batches=0).fit(Copies(), datamodule=data)
    twins.append(copied(data))
    for twin in twins:
        assert twin.trainer is None, "the trainer does not travel"
        twin.setup("fit")
        assert (twin.task, batches(twin)) == (data.task, expected)
        assert len(twin.test_dataloader()) == 2, "nothing is fitted here"
    mini = FewShotDataModule("mini/eurosat", shots=1)
    mini.setup("fit")
    assert len(pickle.dumps(mini)) < 10_000, "images do not travel"
