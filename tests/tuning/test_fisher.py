"""Squared gradients, the drift over time, decisions and intervals: reference values, oracles and invariants."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from clipbench.errors import ConfigError, UnknownName
from clipbench.randomness import torch_generator
from clipbench.tuning.fisher import Drift, SquaredGradients, compare, interval_of_run, threshold, to_freeze
from clipbench.tuning.fisher_groups import matrix_groups, sliced_groups
from clipbench.tuning.fisher_settings import CORRECTED, FAITHFUL, FisherSettings, settings_of_mode
from clipbench.tuning.fisher_watch import FisherWatch

X = 10 ** torch.linspace(-8, -4, 1000, dtype=torch.float64)


def test_drift_over_time_gives_the_reference_values() -> None:
    drift = Drift("released_log", keep=0.9, from_zero=True, reference_keep=0.9)
    averages, variations = [], []
    for factor in (1, 2, 2, 2, 1):
        drift.update(factor * X)
        averages.append(drift.average)
        variations.append(drift.variation)
    assert averages == pytest.approx([0, 0.018844, 0.033259, 0.045118, 0.043276], abs=1e-6)
    assert variations == pytest.approx([0, 0.018844, 0.033259, 0.045118, 0.046960], abs=1e-6)
    assert drift.value("latest") == pytest.approx(0.043276, abs=1e-6)
    assert drift.value("mean") == pytest.approx(0.028099, abs=1e-6)
    assert drift.value("total_variation") == pytest.approx(0.046960, abs=1e-6)


def test_corrected_drift_starts_at_the_first_distance_to_the_last_interval() -> None:
    drift = Drift("jsd")
    generator = torch_generator(1, "drift")
    estimates = [10 ** (width * torch.randn(4000, generator=generator)) for width in (1.0, 1.5, 1.5, 2.5)]
    assert drift.value("latest") is None
    expected = None
    drift.update(estimates[0])
    assert drift.average is None
    for before, now in itertools.pairwise(estimates):
        distance = compare("jsd", before, now)
        assert distance is not None
        expected = distance if expected is None else 0.7 * expected + 0.3 * distance
        drift.update(now)
        assert drift.average == pytest.approx(expected, abs=1e-12)
    assert drift.updates == 3


def test_a_group_without_a_distance_has_no_score() -> None:
    drift = Drift("jsd")
    drift.update(torch.zeros(300))
    drift.update(torch.zeros(300))
    assert drift.value("latest") is None
    with pytest.raises(UnknownName, match="paird"):
        compare("paird", X, X)


SCORES = dict(zip("abcde", (0.1, 0.2, 0.3, 0.5, 1.0), strict=True))


@pytest.mark.parametrize(("width", "bound", "stay"), [(1, 0.73875, {"e"}), (0, 0.42, {"d", "e"})])
def test_threshold_gives_the_reference_values(width: float, bound: float, stay: set[str]) -> None:
    assert threshold(list(SCORES.values()), width) == pytest.approx(bound, abs=1e-5)
    assert set(SCORES) - set(to_freeze(SCORES, dict.fromkeys(SCORES, 1), width)) == stay


def test_the_best_group_stays_where_none_reaches_the_threshold() -> None:
    assert to_freeze(SCORES, dict.fromkeys(SCORES, 1), 5.0) == ["a", "b", "c", "d"]
    assert to_freeze({"a": 0.3}, {"a": 9}, 5.0) == []


def test_at_most_a_share_of_the_groups_goes_at_once_and_the_lowest_first() -> None:
    assert to_freeze(SCORES, dict.fromkeys(SCORES, 1), 0.0, largest_share=0.5) == ["a", "b"]
    assert to_freeze(SCORES, dict.fromkeys(SCORES, 1), 0.0, largest_share=0.1) == []


def test_the_floor_is_never_undercut_and_smaller_groups_still_go() -> None:
    sizes = {"a": 10, "b": 700, "c": 20, "d": 5, "e": 265}
    assert to_freeze(SCORES, sizes, 0.0, floor=300) == ["a", "c"]
    assert to_freeze(SCORES, sizes, 0.0, floor=200) == ["a", "b", "c"]


def test_a_group_without_a_score_stays_and_counts() -> None:
    scores: dict[str, float | None] = {**SCORES, "f": None}
    assert to_freeze(scores, dict.fromkeys(scores, 1), 0.0, largest_share=0.5) == ["a", "b", "c"]
    assert to_freeze({"f": None}, {"f": 1}, 0.0) == []


@pytest.mark.parametrize(
    ("steps", "intervals", "epoch", "halved", "expected"),
    [
        (320, 64, None, False, (5, 1)),
        (200, 64, 2, False, (3, 1)),
        (10, 64, 2, False, (1, 1)),
        (40, 8, 2, True, (8, 2)),  # 20 epochs: four each
        (1200, 8, 12, True, (168, 12)),  # 100 epochs: fourteen each
        (120, 8, 40, True, (16, 1)),  # an epoch longer than an interval: alternate steps
        (4, 8, 2, True, (2, 1)),
    ],
)
def test_intervals_are_relative_to_the_run(
    steps: int, intervals: int, epoch: int | None, halved: bool, expected: tuple[int, int]
) -> None:
    assert interval_of_run(steps, intervals, epoch, halved) == expected


def test_a_run_without_steps_has_no_intervals() -> None:
    with pytest.raises(ConfigError, match="0 steps"):
        interval_of_run(0, 8, None, False)


def parameters() -> dict[str, nn.Parameter]:
    shapes = {"image.blocks.0.fc.weight": (40, 50), "image.blocks.0.fc.bias": (40,), "image.blocks.0.ln.weight": (300,)}
    return {name: nn.Parameter(torch.zeros(shape)) for name, shape in shapes.items()}


def set_gradients(tensors: dict[str, nn.Parameter], step: int) -> dict[str, Tensor]:
    for i, tensor in enumerate(tensors.values()):
        tensor.grad = torch.randn(tensor.shape, generator=torch_generator(step, "gradient", i))
    return {name: tensor.grad.double().square() for name, tensor in tensors.items()}


def test_squared_gradients_are_averaged_by_interval_and_half() -> None:
    tensors = parameters()
    groups = matrix_groups(tensors)
    assert len(groups) == 2
    estimator = SquaredGradients(groups, tensors, halves=2)
    for interval in range(2):
        seen = []
        for step in range(5):
            seen.append(set_gradients(tensors, 10 * interval + step))
            estimator.add(step % 2)
        found = estimator.close()
        for group in groups:
            each = [torch.cat([s[piece.tensor].flatten() for piece in group.pieces]) for s in seen]
            halves = torch.stack([sum(each[0::2]) / 3, sum(each[1::2]) / 2])
            torch.testing.assert_close(found[group.name].double(), halves, rtol=1e-6, atol=0)
    assert estimator.close() == {}


def test_a_large_group_is_watched_at_distinct_places_drawn_once() -> None:
    tensors = parameters()
    groups = matrix_groups(tensors)
    whole, some = SquaredGradients(groups, tensors), SquaredGradients(groups, tensors, most=128)
    again = SquaredGradients(groups, tensors, most=128)
    for step in range(3):
        set_gradients(tensors, step)
        whole.add(), some.add(), again.add()
    all_of, some_of, again_of = whole.close(), some.close(), again.close()
    for group in groups:
        assert some_of[group.name].shape == (128,)
        assert torch.equal(some_of[group.name], again_of[group.name])
        assert len(some_of[group.name].unique()) == 128
        assert torch.isin(some_of[group.name], all_of[group.name]).all()
    vectors = groups[1]
    bias = {float(value) for value in all_of[vectors.name][:40]}
    assert 0 < sum(float(value) in bias for value in some_of[vectors.name]) < 40  # places of all its tensors


def test_slices_see_their_rows() -> None:
    tensors = parameters()
    groups = sliced_groups(tensors)
    estimator = SquaredGradients(groups, tensors)
    squared = set_gradients(tensors, 1)["image.blocks.0.fc.weight"]
    estimator.add()
    found = estimator.close()
    torch.testing.assert_close(found["image.blocks.0.fc.weight[10:20]"].double(), squared[10:20].flatten())


def test_gradients_that_are_not_finite_or_missing_count_as_zero() -> None:
    tensors = parameters()
    groups = matrix_groups(tensors)
    estimator = SquaredGradients(groups, tensors)
    set_gradients(tensors, 1)
    tensors["image.blocks.0.fc.weight"].grad[0, 0] = math.nan
    tensors["image.blocks.0.fc.weight"].grad[0, 1] = math.inf
    tensors["image.blocks.0.fc.bias"].grad = None
    estimator.add()
    found = estimator.close()
    assert found["image.blocks.0.fc.weight"][:2].tolist() == [0, 0]
    assert found["image.blocks.0.fc.weight"].isfinite().all()
    assert not found[groups[1].name][:40].any()
    assert found[groups[1].name][40:].all()


def test_what_is_frozen_is_watched_no_more() -> None:
    tensors = parameters()
    groups = matrix_groups(tensors)
    estimator = SquaredGradients(groups, tensors)
    set_gradients(tensors, 1)
    estimator.add()
    estimator.drop([groups[0].name])
    for name in {piece.tensor for piece in groups[0].pieces}:
        tensors[name].grad = None
    estimator.add()
    assert set(estimator.close()) == {groups[1].name}


def test_a_checkpoint_is_taken_to_where_the_tensors_are() -> None:
    """Lightning reads checkpoints onto the CPU, whatever the accelerator; `meta` stands for one here."""
    tensors = parameters()
    groups = matrix_groups(tensors, 1)
    settings = settings_of_mode("corrected", {"interval": 2, "intervals": 1})
    watch = FisherWatch(settings, nn.Module(), tensors, steps=8)
    for step in range(3):
        set_gradients(tensors, step)
        watch.end_step(step)
    elsewhere = {name: nn.Parameter(tensor.detach().to("meta")) for name, tensor in tensors.items()}
    resumed = FisherWatch(settings, nn.Module(), elsewhere, steps=8)
    resumed.resume(watch.state())
    state = resumed.state()
    held = [drift["reference"] for drift in state["drifts"].values()] + list(state["estimator"]["sums"].values())
    assert len(held) == 2 * len(groups)
    assert {tensor.device.type for tensor in held} == {"meta"}


def test_modes_and_their_changes() -> None:
    assert settings_of_mode("corrected", {}) == CORRECTED
    assert settings_of_mode("faithful", {"width": None}) == FAITHFUL
    assert settings_of_mode("faithful", {"width": 0.0}) == replace(FAITHFUL, width=0.0)
    jsd = settings_of_mode("corrected", {"score": "jsd"})  # section 3.5
    assert (jsd.intervals, jsd.decide_every, jsd.first_decision, jsd.entries) == (64, 8, 16, 0)
    assert (jsd.keep, jsd.width, jsd.largest_share, jsd.floor) == (0.7, 0, 0.5, 0.1)


@pytest.mark.parametrize(
    ("mode", "changes", "message"),
    [
        ("correct", {}, "corrected"),
        ("corrected", {"lambda": 1}, "setting of FisherFreezing"),
        ("corrected", {"score": "js"}, "jsd"),
        ("corrected", {"floor": 10}, "share from 0 to 1"),
        ("corrected", {"estimate": "kronecker"}, "halves"),
        ("corrected", {"interval": 3}, "even"),
        ("corrected", {"decide_every": 0}, "1 or more"),
    ],
)
def test_impossible_settings_are_refused(mode: str, changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings_of_mode(mode, changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": math.nan}, r"FisherFreezing\(width=nan\): width is a finite number"),
        ({"width": math.inf}, r"FisherFreezing\(width=inf\): width is a finite number"),
        ({"slices": "4"}, r"FisherFreezing\(slices='4'\): slices is a whole number"),
        ({"slices": True}, r"FisherFreezing\(slices=True\): slices is a whole number"),
        ({"keep": [0.7]}, r"FisherFreezing\(keep=\[0\.7\]\): keep is a number"),
        ({"freeze_dead": "yes"}, r"FisherFreezing\(freeze_dead='yes'\): freeze_dead is True or False"),
        ({"from_zero": 1}, "from_zero is True or False"),
        ({"interval": 2.0}, "interval is a whole number"),
        ({"entries": -5}, "entries of FisherFreezing is 0"),
        ({"score": ["paired"]}, "unknown score of FisherFreezing"),
    ],
)
def test_values_that_mean_nothing_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings_of_mode("corrected", changes)


def test_settings_are_those_of_the_callback() -> None:
    import inspect
    from dataclasses import fields

    from clipbench.methods.fisher_freezing import FisherFreezing

    arguments = list(inspect.signature(FisherFreezing).parameters)
    assert arguments == ["mode", *(field.name for field in fields(FisherSettings))]
