"""clipbench as a library: methods are LightningModules that any user of Lightning fits, tests and asks."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

import clipbench
from clipbench import CLIPFit, CoOp, FewShotDataModule, LinearProbe, LoRA, Method, ZeroShot
from clipbench.bench.trainer import quiet_lightning
from clipbench.errors import ClipbenchError, ConfigError, DataError, MethodError, UnknownName

EIGHT = ("CLIPFit", "CoOp", "LoRA", "MFT", "RAMT", "FineTuning", "LinearProbe", "FisherAdapTune")
QUIET: dict[str, Any] = {
    "logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False,
}  # fmt: skip


@pytest.fixture(autouse=True)
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written beside the tests, and Lightning is silent."""
    monkeypatch.chdir(tmp_path)
    quiet_lightning()


def trainer(**settings: Any) -> L.Trainer:
    """An ordinary one; of a test split it sees the first hundred images."""
    return L.Trainer(**{"max_epochs": 1, "limit_test_batches": 1, "limit_predict_batches": 1} | QUIET | settings)


def dtd(**settings: Any) -> FewShotDataModule:
    return FewShotDataModule("mini/dtd", **{"shots": 1, "seed": 1} | settings)


def pixels(count: int = 3) -> Tensor:
    """Test images, uint8 (count, 3, H, W)."""
    return next(iter(dtd().test_dataloader()[0])).image[:count]


def numbers_of(method: Method, data: Any = None) -> dict[str, float]:
    """The numbers of a test by name."""
    outcomes = trainer().test(method, data or dtd(), verbose=False)
    return {name: value for outcome in outcomes for name, value in outcome.items()}


def learned(method: Method) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in method.weights.state().items()}


@pytest.mark.parametrize("name", ["CLIPFit", "CoOp", "LoRA", "LinearProbe", "ZeroShot"])
def test_an_ordinary_trainer_fits_validates_tests_and_predicts(name: str) -> None:
    method, data, run = getattr(clipbench, name)(backbone="mini"), dtd(), trainer()
    run.fit(method, data)
    (validated,) = run.validate(method, data, verbose=False)
    assert set(validated) == {"val/accuracy"}
    numbers = {key: value for outcome in run.test(method, data, verbose=False) for key, value in outcome.items()}
    assert set(numbers) == {"test/base", "test/novel"}
    batches = run.predict(method, data)
    for split, parts in zip(data.task.tests, batches, strict=True):
        probabilities = torch.cat(parts)
        assert probabilities.shape == (100, len(split.classnames))
        torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(100))
        right = probabilities.argmax(dim=1) == torch.as_tensor(data.test_images(split.name).labels[:100])
        assert right.double().mean() == pytest.approx(numbers[f"test/{split.name}"], abs=1e-6)


def test_the_example_of_the_readme_runs_twice_in_one_process() -> None:
    found = []
    for _ in range(2):
        data = FewShotDataModule("mini/eurosat", shots=4, seed=1)
        method = CLIPFit(backbone="mini", lr=0.005)
        run = trainer(max_epochs=2)
        run.fit(method, data)
        found.append(run.test(method, data, verbose=False))
        method.save("clipfit.safetensors")
        images = [np.asarray(image).transpose(1, 2, 0) for image in pixels(2)]
        for number, image in enumerate(images):
            Image.fromarray(image).save(f"{number}.png")
        answers = [
            method.predict(["0.png", "1.png"], classes=["forest", "river"]),
            method.predict([Image.open("0.png"), Image.open("1.png")], classes=["forest", "river"]),
            method.predict(pixels(2), classes=["forest", "river"]),
            CLIPFit.load("clipfit.safetensors").predict(["0.png", "1.png"], classes=["forest", "river"]),
        ]
        assert all(torch.equal(answer, answers[0]) for answer in answers)
        assert answers[0].shape == (2, 2)
    assert found[0] == found[1]


def test_every_number_is_given_once() -> None:
    outcomes = trainer().test(ZeroShot(backbone="mini"), dtd(), verbose=False)
    names = [name for outcome in outcomes for name in outcome]
    assert sorted(names) == ["test/base", "test/novel"]


@pytest.mark.filterwarnings("ignore::clipbench.errors.ClipbenchWarning")  # too few steps for Fisher freezing
def test_methods_side_by_side_give_the_numbers_that_each_gives_alone() -> None:
    zero_shot, data, kept = ZeroShot(backbone="mini"), dtd(), {}
    reference = numbers_of(zero_shot, data)
    for name in EIGHT:
        method = getattr(clipbench, name)(backbone="mini")
        trainer(max_epochs=2, limit_val_batches=0).fit(method, data)
        kept[name] = (method, numbers_of(method, data), method(pixels()).detach())
        assert numbers_of(zero_shot, data) == reference, name
    for name, (method, first, logits) in kept.items():
        assert numbers_of(method, data) == first, name
        assert torch.equal(method(pixels()), logits), name


def test_forward_gives_float32_logits_before_and_after_a_fit() -> None:
    method, data = CLIPFit(backbone="mini", lr=0.01), dtd()
    trainer().validate(method, data, verbose=False)
    before = method(pixels()).detach()
    trainer(max_epochs=2).fit(method, data)
    after = method(pixels())
    for logits in (before, after):
        assert logits.dtype == torch.float32
        assert logits.shape == (3, len(data.task.train))
    assert not torch.equal(after, before)
    assert torch.equal(method(method.backbone.normalise(pixels())), after), "normalised floats are taken as they are"
    assert method(pixels(), ["forest", "river"]).shape == (3, 2)


@pytest.mark.parametrize("length", [{"max_epochs": -1, "max_steps": 3}, {"fast_dev_run": True}], ids=["steps", "dev"])
@pytest.mark.parametrize("schedule", ["cosine", "cosine_per_step", "constant"])
def test_a_fit_may_be_given_by_its_steps_alone(length: dict[str, Any], schedule: Any) -> None:
    method, run = CLIPFit(backbone="mini", schedule=schedule), trainer(**length)
    run.fit(method, dtd())
    assert run.global_step == (1 if "fast_dev_run" in length else 3)


def test_the_cosine_of_a_fit_by_steps_is_that_of_its_epochs() -> None:
    by_steps, by_epochs = (CLIPFit(backbone="mini", lr=0.01, warmup_epochs=0) for _ in range(2))
    data = {"shots": 4, "batch_size": 6}
    run = trainer(max_epochs=2)
    run.fit(by_epochs, dtd(**data))
    assert run.global_step > 2
    trainer(max_epochs=-1, max_steps=run.global_step).fit(by_steps, dtd(**data))
    for name, tensor in learned(by_epochs).items():
        assert torch.equal(tensor, by_steps.trainable[name]), name


def test_a_loop_over_seeds_needs_no_word_between() -> None:
    found = []
    for seed in (1, 2, 1):
        method = CoOp(backbone="mini", context_words="", n_context=2)
        trainer().fit(method, dtd(seed=seed))
        found.append(learned(method)["context.vectors"])
    assert torch.equal(found[0], found[2])
    assert not torch.allclose(found[0], found[1])


def test_after_an_exception_in_a_callback_the_next_method_is_as_ever() -> None:
    class Stop(L.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            raise KeyError("a user's own fault")

    def fitted() -> dict[str, Tensor]:
        method = CoOp(backbone="mini")
        trainer(max_epochs=2).fit(method, dtd())
        return learned(method)

    expected = fitted()
    with contextlib.suppress(KeyError):
        trainer(callbacks=[Stop()]).fit(CLIPFit(backbone="mini", warmup_epochs=0), dtd())
    assert torch.equal(fitted()["context.vectors"], expected["context.vectors"])


def test_on_another_dataset_its_class_names_and_templates_count() -> None:
    other = FewShotDataModule("mini/eurosat", shots=1, seed=1)
    alone = numbers_of(ZeroShot(backbone="mini"), other)
    method = ZeroShot(backbone="mini")
    here = numbers_of(method)
    assert numbers_of(method, other) == alone
    assert numbers_of(method) == here


def test_what_was_learned_is_tested_on_another_dataset_and_stays() -> None:
    method = CoOp(backbone="mini")
    trainer(max_epochs=2).fit(method, dtd())
    before, here = learned(method), numbers_of(method)
    assert len(numbers_of(method, FewShotDataModule("mini/eurosat", shots=1, seed=1))) == 2
    assert torch.equal(method.trainable["context.vectors"], before["context.vectors"])
    assert method.classnames == dtd().task.train
    assert numbers_of(method) == here


def test_a_loader_given_by_hand_is_measured_as_what_it_is() -> None:
    method, data = ZeroShot(backbone="mini"), dtd()
    both = numbers_of(method, data)
    for loader, split in zip(data.test_dataloader(), data.task.tests, strict=True):
        assert numbers_of(method, loader) == {f"test/{split.name}": both[f"test/{split.name}"]}


def plain(loader: Any) -> DataLoader[Any]:
    """The same images as pairs that do not say what they are of."""
    pairs: Any = [(batch.image, batch.label) for batch in loader]
    return DataLoader(pairs, batch_size=None)


def test_plain_pairs_of_images_and_labels_are_fitted_and_validated() -> None:
    data, pairs, whole = dtd(), CLIPFit(backbone="mini", warmup_epochs=0), CLIPFit(backbone="mini", warmup_epochs=0)
    trainer().fit(whole, data)
    (expected,) = trainer().validate(whole, data, verbose=False)
    pairs.setup(task=data.task, train_seed=1)
    trainer().fit(pairs, plain(data.train_dataloader()), plain(data.val_dataloader()))
    for name, tensor in learned(whole).items():
        assert torch.equal(tensor, pairs.trainable[name]), name
    assert trainer().validate(pairs, plain(data.val_dataloader()), verbose=False) == [expected]


def test_plain_pairs_are_tested_where_the_number_of_loaders_says_which_split_each_is() -> None:
    data, method = dtd(), ZeroShot(backbone="mini")
    expected = numbers_of(method, data)
    loaders = [plain(loader) for loader in data.test_dataloader()]
    assert numbers_of(method, loaders) == expected
    with pytest.raises(ConfigError, match=r"nothing says which classes the images of 1 loader are about.*base, novel"):
        numbers_of(method, loaders[1])


def test_two_devices_are_refused() -> None:
    with pytest.raises(Exception, match="a method works on one device, not on 2"):
        trainer(accelerator="cpu", devices=2, strategy="ddp_fork").fit(CLIPFit(backbone="mini"), dtd())


@pytest.mark.parametrize(
    ("settings", "near"),
    [
        ({"learning_rate": 0.1}, r"of CLIPFit 'learning_rate'.*\blr\b"),
        ({"distilation_weight": 1.0}, "did you mean 'distillation_weight'"),
        ({"backbone": "ViT-B-61"}, "ViT-B-16"),
    ],
)
def test_an_unknown_setting_is_named_with_the_nearest_one(settings: dict[str, Any], near: str) -> None:
    with pytest.raises(UnknownName, match=near):
        CLIPFit(**settings)


@pytest.mark.parametrize(
    ("name", "settings", "unread"),
    [
        ("MFT", {"lr": 0.5}, "lr=0.5"),
        ("MFT", {"rule": "soft", "keep": 0.5}, "keep=0.5"),
        ("CLIPFit", {"optimizer": "adam", "momentum": 0.9}, "momentum=0.9"),
        ("CLIPFit", {"schedule": "cosine_per_step", "warmup_epochs": 1}, "warmup_epochs=1"),
        ("CLIPFit", {"final_lr": 0.0}, "final_lr=0.0"),
        ("CoOp", {"n_context": 4}, "n_context=4"),
    ],
)
def test_a_setting_that_nothing_reads_is_refused(name: str, settings: dict[str, Any], unread: str) -> None:
    with pytest.raises(ConfigError, match=f"^{unread} is read by nothing: .*; leave .* out"):
        getattr(clipbench, name)(backbone="mini", **settings)


@pytest.mark.parametrize("name", ["ZeroShot", "LinearProbe", "WiSEFT"])
def test_what_is_not_trained_by_steps_takes_no_settings_of_an_optimiser(name: str) -> None:
    with pytest.raises((TypeError, ClipbenchError), match="lr"):
        getattr(clipbench, name)(backbone="mini", lr=0.1)


def test_freeze_and_unfreeze_mean_what_the_method_trains() -> None:
    method, free = LoRA(backbone="mini", dropout=0.5), LoRA(backbone="mini", dropout=0.5)
    for one in (method, free):
        one.setup(task=dtd().task)
    method.freeze()
    assert not any(parameter.requires_grad for parameter in method.parameters())
    assert not any(part.training for part in method.modules())
    method.unfreeze()
    trained = {id(parameter) for parameter in method.trainable.values()}
    assert {id(parameter) for parameter in method.parameters() if parameter.requires_grad} == trained
    for one in (method, free):
        trainer(max_epochs=2).fit(one, dtd())
    for name, tensor in learned(free).items():
        assert torch.equal(tensor, method.trainable[name]), name


def test_a_head_for_other_classes_is_not_fitted_further() -> None:
    method = LinearProbe(backbone="mini")
    trainer().fit(method, dtd())
    with pytest.raises(MethodError, match="LinearProbe has learned 'weight' for other classes than 'eurosat' has"):
        trainer().fit(method, FewShotDataModule("mini/eurosat", shots=1, seed=1))


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        (["cat", "dog", "cat"], "two classes have the same name: 'cat'"),
        (["big cat", "dog", "Big_Cat"], "classes 'big cat' and 'Big_Cat' give the same prompt"),
        (["cafe\u0301", "caf\u00e9"], "give the same prompt"),
        (["cat", " "], "class names without a word"),
        (["cat", "d\x1bog"], "control character"),
        ([], "no class is named"),
    ],
)
def test_classes_are_told_apart_by_their_prompts(classes: list[str], says: str) -> None:
    method = ZeroShot()
    for _ in range(2):  # before it is set up, and after it
        with pytest.raises(DataError, match=says):
            method.predict(pixels(1), classes=classes)
        assert (method.header is None) == (method.task is None)
        method.predict(pixels(1), classes=["forest", "river"])


@pytest.mark.parametrize("classes", ["cat", ["cat", 5], [["cat"], ["dog"]], [None, "dog"], {"cat": 1, 2: 3}])
def test_classes_are_a_list_of_names(classes: Any) -> None:
    with pytest.raises(TypeError, match="classes are a list of names, not"):
        ZeroShot().predict(pixels(1), classes=classes)


@pytest.mark.parametrize("path", [5, None, 1.5, ["a"], {}])
def test_a_file_is_named_by_a_path(path: Any) -> None:
    with pytest.raises(TypeError, match=r"(str, bytes or os\.PathLike|os\.PathLike)"):
        Method.load(path)
