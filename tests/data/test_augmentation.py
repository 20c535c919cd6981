"""Augmented images: torchvision's pixels bit for bit, parameters that depend on nothing but their key."""

from __future__ import annotations

import hashlib
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms as T
from torchvision.transforms import functional as F

from clipbench.data.augmentation import ImagePolicy, augmented_image, crop_box, plain_image, uniforms
from clipbench.data.samplers import EpochBatches, PassBatches, epoch_order
from clipbench.errors import ConfigError

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


class FakeTorch(SimpleNamespace):
    """Feeds torchvision's own `get_params` with our random numbers, in float64."""

    def __init__(self, uniform: list[float]) -> None:
        tries = iter(uniform[3:])
        places = iter(uniform[1:3])

        def value(number: float) -> SimpleNamespace:
            return SimpleNamespace(item=lambda: number)

        def empty(_: int) -> SimpleNamespace:
            return SimpleNamespace(uniform_=lambda low, high: value(low + (high - low) * next(tries)))

        super().__init__(
            tensor=lambda values: values,
            log=lambda values: [math.log(one) for one in values],
            exp=lambda one: value(math.exp(one.item())),
            empty=empty,
            randint=lambda low, high, size: value(int(next(places) * high)),
        )


SHAPES = [(48, 48), (375, 500), (500, 333), (30, 400), (400, 30), (1, 1), (7, 1000)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.8, 1.0), (0.99, 1.0)])
def test_the_crop_is_torchvisions_own_algorithm(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], scale: tuple[float, float]
) -> None:
    policy = ImagePolicy(crop_scale=scale)
    image = Image.fromarray(pixels(*shape))
    for epoch in range(60):
        uniform = uniforms(policy, 1, "dtd", "a.jpg", epoch, 0)
        with monkeypatch.context() as patch:
            patch.setattr("torchvision.transforms.transforms.torch", FakeTorch(uniform))
            expected = T.RandomResizedCrop.get_params(image, list(policy.crop_scale), list(policy.crop_ratio))
        assert crop_box(*shape, policy, uniform) == expected


def test_where_no_try_fits_the_centre_is_cut() -> None:
    long = ImagePolicy(crop_scale=(0.9, 1.0))
    assert crop_box(30, 400, long, uniforms(long, 1, "d", "p", 0, 0)) == (0, 180, 30, 40)
    assert crop_box(400, 30, long, uniforms(long, 1, "d", "p", 0, 0)) == (180, 0, 40, 30)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("size", "interpolation"), [(224, "bicubic"), (48, "bicubic"), (112, "bilinear"), (40, "lanczos"), (40, "nearest")]
)
def test_augmented_images_equal_torchvision_bit_for_bit(shape: tuple[int, int], size: int, interpolation: str) -> None:
    policy = ImagePolicy(size=size, interpolation=interpolation)
    array = pixels(*shape)
    for epoch in range(6):
        uniform = uniforms(policy, 2, "dtd", "b.jpg", epoch, 0)
        top, left, height, width = crop_box(*shape, policy, uniform)
        mode = F.InterpolationMode(interpolation)
        expected = F.resized_crop(Image.fromarray(array), top, left, height, width, [size, size], mode)
        if uniform[0] < policy.flip:
            expected = F.hflip(expected)
        image = augmented_image(array, policy, 2, "dtd", "b.jpg", epoch)
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
        np.testing.assert_array_equal(image, np.asarray(expected).transpose(2, 0, 1))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from([32, 48, 97, 224]),
    st.sampled_from(["bicubic", "bilinear"]),
)
def test_plain_images_equal_torchvision_bit_for_bit(height: int, width: int, size: int, interpolation: str) -> None:
    if max(height, width) / min(height, width) > 20:
        return
    array = pixels(height, width)
    expected = T.Compose([T.Resize(size, F.InterpolationMode(interpolation)), T.CenterCrop(size)])(
        Image.fromarray(array)
    )
    image = plain_image(array, ImagePolicy(size=size, interpolation=interpolation))
    np.testing.assert_array_equal(image, np.asarray(expected).transpose(2, 0, 1))


def test_squash_resizes_both_sides() -> None:
    array = pixels(60, 100)
    expected = Image.fromarray(array).resize((32, 32), Image.Resampling.BICUBIC)
    image = plain_image(array, ImagePolicy(size=32, resize_mode="squash"))
    np.testing.assert_array_equal(image, np.asarray(expected).transpose(2, 0, 1))


def test_normalisation_after_collation_equals_the_classical_pipeline_bit_for_bit() -> None:
    """Whoever normalises the batch as below gets the per-image ToTensor and Normalize exactly."""
    policy = ImagePolicy(size=64)
    arrays = [pixels(50 + number, 70, number) for number in range(8)]
    classical = T.Compose(
        [T.Resize(64, F.InterpolationMode.BICUBIC), T.CenterCrop(64), T.ToTensor(), T.Normalize(MEAN, STD)]
    )
    expected = torch.stack([classical(Image.fromarray(array)) for array in arrays])
    batch = torch.from_numpy(np.stack([plain_image(array, policy) for array in arrays]))
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    assert torch.equal(batch.float().div_(255).sub_(mean).div_(std), expected)


def test_an_augmented_image_depends_on_each_part_of_its_key_and_on_nothing_else() -> None:
    array = pixels(80, 90)
    policy = ImagePolicy(size=32)
    start = dict(policy=policy, seed=1, dataset="dtd", path="a.jpg", epoch=0, number=0)
    first = augmented_image(array, **start)
    np.random.seed(5)
    torch.manual_seed(5)
    np.testing.assert_array_equal(augmented_image(array, **start), first)
    for changed in (
        dict(seed=2), dict(dataset="ucf101"), dict(path="b.jpg"), dict(epoch=1), dict(number=1),
        dict(policy=ImagePolicy(size=32, crop_scale=(0.07, 1.0))), dict(policy=ImagePolicy(size=32, flip=0.4)),
    ):  # fmt: skip
        assert not np.array_equal(augmented_image(array, **{**start, **changed}), first), changed


def test_crops_are_the_same_on_backbones_of_other_sizes() -> None:
    small, large = ImagePolicy(size=112), ImagePolicy(size=224, interpolation="bilinear")
    assert uniforms(small, 1, "d", "p", 3, 0) == uniforms(large, 1, "d", "p", 3, 0)


def test_the_distribution_is_that_of_the_protocol() -> None:
    """Area uniform in the scale, log of the ratio uniform, flip half of the time; 4000 images, five standard errors."""
    policy = ImagePolicy()
    boxes, flips = [], 0
    for number in range(4000):
        uniform = uniforms(policy, 1, "d", f"{number}.jpg", 0, 0)
        boxes.append(crop_box(4000, 4000, ImagePolicy(crop_scale=(0.08, 0.5)), uniform))
        flips += uniform[0] < policy.flip
    top, left, height, width = np.array(boxes).T
    area, log_ratio = height * width / 4000**2, np.log(width / height)
    assert abs(area.mean() - 0.29) < 5 * 0.42 / math.sqrt(12 * 4000)
    assert abs(log_ratio.mean()) < 5 * 2 * math.log(4 / 3) / math.sqrt(12 * 4000)
    assert area.min() > 0.0799
    assert abs(log_ratio).max() < math.log(4 / 3) + 1e-3
    assert abs((left / (4000 - width)).mean() - 0.5) < 5 / math.sqrt(12 * 4000)
    assert abs((top / (4000 - height)).mean() - 0.5) < 5 / math.sqrt(12 * 4000)
    assert abs(flips / 4000 - 0.5) < 5 * 0.5 / math.sqrt(4000)


@pytest.mark.parametrize(("flip", "mirrored"), [(0.0, False), (1.0, True)])
def test_flip_never_and_always(flip: float, mirrored: bool) -> None:
    array = pixels(40, 40)
    policy = ImagePolicy(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=flip, size=40)
    expected = array[:, ::-1] if mirrored else array
    np.testing.assert_array_equal(augmented_image(array, policy, 1, "d", "p", 0), expected.transpose(2, 0, 1))


@pytest.mark.parametrize(
    "wrong",
    [dict(crop_scale=(0.0, 1.0)), dict(crop_scale=(0.9, 0.1)), dict(crop_scale=(0.5, 1.5)), dict(crop_ratio=(0.0, 1.0)),
     dict(flip=1.5), dict(size=0), dict(interpolation="bicubc"), dict(resize_mode="longest")],
)  # fmt: skip
def test_an_impossible_policy_is_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        ImagePolicy(**wrong)


def test_an_unknown_interpolation_gets_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="did you mean 'bicubic'"):
        ImagePolicy(interpolation="bicubc")


def test_the_order_of_an_epoch_is_a_permutation_of_its_own() -> None:
    orders = {tuple(epoch_order(80, *key)) for key in [(1, "a", 0), (1, "a", 1), (2, "a", 0), (1, "b", 0)]}
    assert len(orders) == 4
    assert all(sorted(order) == list(range(80)) for order in orders)


@pytest.mark.parametrize(("length", "expected"), [(80, [32, 32]), (32, [32]), (31, [31]), (64, [32, 32]), (0, [])])
def test_the_last_short_batch_is_dropped_where_there_is_a_full_one(length: int, expected: list[int]) -> None:
    batches = EpochBatches(length, 32, seed=1, dataset="eurosat")
    assert [len(batch) for batch in batches] == expected
    assert len(batches) == len(expected)


def test_set_epoch_changes_order_and_epoch_and_can_go_back() -> None:
    batches = EpochBatches(10, 4, seed=1, dataset="d")
    first = list(batches)
    batches.sampler.set_epoch(3)
    later = list(batches)
    assert {epoch for batch in later for _, epoch in batch} == {3}
    assert [[position for position, _ in batch] for batch in later] != [
        [position for position, _ in batch] for batch in first
    ]
    batches.set_epoch(0)
    assert list(batches) == first


@pytest.mark.parametrize(("length", "size", "passes"), [(5, 2, 3), (5, 100, 2), (4, 4, 1), (1, 3, 7), (0, 3, 2)])
def test_passes_take_every_image_in_order_and_drop_none(length: int, size: int, passes: int) -> None:
    batches = PassBatches(length, size, passes)
    found = list(batches)
    assert len(found) == len(batches)
    assert [pair for batch in found for pair in batch] == [(i, k) for k in range(passes) for i in range(length)]
    assert all(len(batch) == size for batch in found[:-1])


GOLDEN_CROP = [(6, 65, 359, 361), 0.020882172797]
GOLDEN_ORDER = [8, 7, 2, 9, 4, 3, 5, 1, 6, 0]
GOLDEN_IMAGE = "08c4eeaa33120d5d"


def test_golden_numbers_of_augmentation_and_order() -> None:
    """When this fails, numbers of all records move: raise `clipbench.data.VERSION`, then renew the values."""
    uniform = uniforms(ImagePolicy(), 1, "dtd", "banded/banded_0117.jpg", 4, 0)
    assert [crop_box(375, 500, ImagePolicy(), uniform), round(uniform[0], 12)] == GOLDEN_CROP
    assert epoch_order(10, 1, "dtd", 2).tolist() == GOLDEN_ORDER
    pattern = (np.arange(60 * 70 * 3) * 7919 % 251).astype(np.uint8).reshape(60, 70, 3)
    image = augmented_image(pattern, ImagePolicy(size=48), 1, "dtd", "banded/banded_0117.jpg", 4)
    assert hashlib.sha256(image.tobytes()).hexdigest()[:16] == GOLDEN_IMAGE


def test_policies_are_told_apart_by_what_moves_the_crop() -> None:
    assert ImagePolicy().key != ImagePolicy(crop_ratio=(0.9, 1.1)).key
