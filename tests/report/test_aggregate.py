"""From records to rows: the rules of averaging, missing cells, which records count."""

from __future__ import annotations

import math
import random
import re
import statistics
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipbench.records.store import Cell, Record
from clipbench.report.aggregate import COLUMNS, SPREADS, aggregate, rows_of
from clipbench.report.cells import cells_of
from clipbench.report.select import select
from tests.records.records import cell, failed, record

SUITE = {"mini": ["dtd", "eurosat"]}


class Asked(NamedTuple):
    cell: Cell
    key: str
    provenance: dict[str, Any] = Record(record()).provenance


def made(recipe: str, dataset: str, seed: int, base: int, novel: int | None = 20, **changes: Any) -> Record:
    of = cell(recipe=recipe, dataset=dataset, seed=seed, **changes.pop("cell", {}))
    return Record(record(of, base=base, novel=novel, **changes))


def frame_of(records: list[Record], expected: Any = None, suite: dict[str, list[str]] | None = None) -> pd.DataFrame:
    chosen = select(records, expected)
    return aggregate(cells_of(chosen.records), chosen.missing, SUITE if suite is None else suite)


def row(frame: pd.DataFrame, dataset: str, recipe: str = "clipfit") -> Any:
    (index,) = frame.index[(frame["dataset"] == dataset) & (frame["recipe"] == recipe)]
    return frame.loc[index]


GRID = [
    made("clipfit", "dtd", 1, 30, 20), made("clipfit", "dtd", 2, 34, 10), made("clipfit", "dtd", 3, 32, 15),
    made("clipfit", "eurosat", 1, 20, 40), made("clipfit", "eurosat", 2, 24, 36), made("clipfit", "eurosat", 3, 28, 38),
]  # fmt: skip


def test_columns_are_exactly_those_of_the_design() -> None:
    named = (
        "suite,backbone,protocol,setting,shots,recipe,method,dataset,seeds,cells,cells_expected,base,novel,h,h_mean,"
        "base_std,novel_std,novel_rule,trained_parameters,trained_parameters_end,share,stored_bytes,seconds_per_step,"
        "train_seconds,peak_bytes,inference_overhead,variant,averaged,accuracy,"
        "joint_base,joint_novel,joint_h,openworld_auc,validation_free"
    )
    assert ",".join(COLUMNS) == named
    assert list(frame_of(GRID).columns) == [*COLUMNS, *SPREADS, "pretrained", "own_data", "beside"]


def test_rows_follow_the_rules_of_the_literature() -> None:
    """By hand: dtd 75, 85, 80 and 50, 25, 37.5; eurosat 50, 60, 70 and 100, 90, 95 percent."""
    frame = frame_of(GRID)
    dtd, eurosat, average = (row(frame, name) for name in ("dtd", "eurosat", "average"))
    assert (dtd.base, dtd.novel, eurosat.base, eurosat.novel) == (80.0, 37.5, 60.0, 95.0)
    assert dtd.h == pytest.approx(2 * 80 * 37.5 / 117.5)
    assert dtd.h != pytest.approx(np.mean([2 * 75 * 50 / 125, 2 * 85 * 25 / 110, 2 * 80 * 37.5 / 117.5])), (
        "not of seeds"
    )
    assert (average.base, average.novel) == (70.0, 66.25)
    assert average.h == pytest.approx(2 * 70 * 66.25 / 136.25), "H of the averages"
    assert average.h_mean == pytest.approx((dtd.h + eurosat.h) / 2), "the mean of the H column stands beside it"
    assert dtd.base_std == pytest.approx(statistics.stdev([75, 85, 80]))
    assert average.base_std == pytest.approx(np.std([62.5, 72.5, 75.0], ddof=1)), "over seeds, of their averages"
    assert average.novel_std == pytest.approx(np.std([75.0, 57.5, 66.25], ddof=1))
    assert (average.seeds, average.cells, average.cells_expected) == ("1,2,3", 6, 6)
    assert math.isnan(dtd.h_mean)


def test_one_seed_has_no_spread() -> None:
    frame = frame_of([GRID[0], GRID[3]])
    assert row(frame, "average").base == 62.5
    assert math.isnan(row(frame, "average").base_std)
    assert row(frame, "average").seeds == "1"


def test_missing_cells_take_the_average_away_and_are_counted() -> None:
    frame = frame_of(GRID[:4])
    average, eurosat = row(frame, "average"), row(frame, "eurosat")
    assert (average.cells, average.cells_expected) == (4, 6)
    for column in ("base", "novel", "h", "h_mean", "base_std", "trained_parameters", "train_seconds"):
        assert math.isnan(average[column]), column
    assert (eurosat.cells, eurosat.cells_expected, eurosat.base) == (1, 3, 50.0)


def test_a_dataset_without_any_record_is_a_row_without_numbers() -> None:
    frame = frame_of(GRID[:3])
    eurosat = row(frame, "eurosat")
    assert (eurosat.cells, eurosat.cells_expected, eurosat.method) == (0, 3, "CLIPFit")
    assert math.isnan(eurosat.base)
    assert math.isnan(row(frame, "average").base)


def test_planned_cells_without_record_are_missing_even_of_a_recipe_without_any() -> None:
    asked = [Asked(record_.cell, record_.key) for record_ in GRID]
    asked += [Asked(cell(recipe="coop", dataset=name, seed=1), "0" * 64) for name in SUITE["mini"]]
    frame = frame_of(GRID, asked)
    assert row(frame, "average").cells == 6
    coop = row(frame, "average", "coop")
    assert (coop.cells, coop.cells_expected) == (0, 2)
    assert list(frame["recipe"].unique()) == ["clipfit", "coop"]


def test_a_failed_cell_is_missing_and_named() -> None:
    chosen = select([*GRID[:5], Record(failed(cell(dataset="eurosat", seed=3)))])
    assert [missing.dataset for missing in chosen.missing] == ["eurosat"]
    assert "clipfit on eurosat, 16 shots, seed 3 failed: MethodError: the loss is not finite" in chosen.notes[0]


def test_a_later_success_hides_an_earlier_failure() -> None:
    chosen = select([Record(failed(GRID[0].cell)), *GRID])
    assert chosen.notes == []
    assert len(chosen.records) == 6


def test_without_a_plan_the_latest_of_several_settings_counts_and_is_said() -> None:
    early = made("clipfit", "dtd", 1, 10, lr=2, environment={"finished": "2025-01-01T00:00:00+00:00"})
    frame = frame_of([early, *GRID])
    assert row(frame, "dtd").base == 80.0
    assert "1 cell (dtd seed 1) with several keys" in select([early, *GRID]).notes[0]


def test_with_a_plan_only_its_keys_count() -> None:
    late = made("clipfit", "dtd", 1, 10, lr=2, environment={"finished": "2030-01-01T00:00:00+00:00"})
    asked = [Asked(record_.cell, record_.key) for record_ in GRID]
    assert row(frame_of([late, *GRID], asked), "dtd").base == 80.0
    assert row(frame_of([late, *GRID]), "dtd").base == pytest.approx((25 + 85 + 80) / 3)
    assert row(frame_of([late, *GRID[1:]], asked), "dtd").cells == 2, (
        "a record of other settings does not fill the hole"
    )


@pytest.mark.parametrize(
    ("change", "name", "reason"),
    [
        ({"precision": "bf16-mixed"}, "precision bf16-mixed", "precision"),
        ({"backbone_hash": "c" * 64}, "backbone cccccc", "backbone"),
        (
            {"versions": {"data": 1, "backbone": 1, "method": 2, "protocol": 1}},
            "method version 2",
            "version",
        ),
        ({"variant": {"model.lr": 0.1}}, "model.lr 0.1", "settings"),
        (
            {"variant": {"model.class_path": "ZeroShot", "model.a": 1, "model.b": None, "model.c": "x"}},
            "model.a 1, model.b null, model.c x, 1 more \\([0-9a-f]{4}\\)",
            "settings",
        ),
        ({"class_path": "mine:CLIPFit"}, "class mine:CLIPFit", "class"),
        ({"code": {"mine:CLIPFit": "a"}}, "code [0-9a-f]{4}", "code"),
        ({"recipe_digest": "another"}, "recipe [0-9a-f]{4}", "recipe"),
        ({"split_hash": "t" * 64}, "data [0-9a-f]{4}", "data"),
        ({"test_digest": "t" * 64}, "data [0-9a-f]{4}", "data"),
        ({"suite_digest": "t" * 64}, "data [0-9a-f]{4}", "data"),
        ({"split_hash": "t" * 64, "train_digest": "u" * 64}, "data [0-9a-f]{4}", "data"),
        ({"templates": ["a sketch of a {}."]}, "data [0-9a-f]{4}", "data"),
        ({"augmentation": {"crop_scale": [0.9, 1.0]}}, "data [0-9a-f]{4}", "data"),
        ({"backbone_spec": {"activation": "gelu"}}, "activation or preprocessing [0-9a-f]{4}", "backbone"),
    ],
)
def test_whatever_differs_is_a_row_of_its_own(change: dict[str, Any], name: str, reason: str) -> None:
    odd = made("clipfit", "eurosat", 3, 28, 38, provenance=change)
    frame = frame_of([*GRID[:5], odd])
    averages = {row["variant"]: row for row in rows_of(frame) if row["dataset"] == "average"}
    (usual, other) = averages
    assert usual == ""
    assert re.fullmatch(name, other)
    assert [row["cells"] for row in averages.values()] == [5, 1]
    assert all(math.isnan(row["base"]) for row in averages.values())
    assert select([*GRID[:5], odd]).notes == [f"clipfit: 2 rows, which are kept apart by {reason}"]
    (left,) = select([*GRID[:5], odd], apart=False).notes
    assert left == f"clipfit: 1 cell (eurosat seed 3) left out, of another row: other {reason}"


def test_records_that_do_not_say_what_was_drawn_from_stay_with_those_that_do() -> None:
    says = {"train_digest": "t" * 64}
    late = [made("clipfit", "eurosat", seed, 28, 38, provenance=says) for seed in (4, 5)]
    first = [one for one in GRID if one.cell.dataset == "eurosat"]
    assert {row["variant"] for row in rows_of(frame_of([*first, *late]))} == {""}
    other = made("clipfit", "eurosat", 6, 28, 38, provenance={"train_digest": "u" * 64})
    assert len({row["variant"] for row in rows_of(frame_of([*first, *late, other]))}) == 2


def test_what_did_not_act_keeps_no_record_from_the_row_of_its_plan() -> None:
    """A recipe that states a default is another file, with other digests, and the same cells."""
    asked = [
        Asked(one.cell, one.key, one.provenance | {"recipe_digest": "z" * 64, "templates": ["a {}."]}) for one in GRID
    ]
    chosen = select(GRID, asked)
    assert (len(chosen.records), chosen.missing, chosen.notes) == (len(GRID), [], [])


def former(record_: Record, changed: dict[str, Any] | None = None) -> Record:
    """The record as versions before 0.3 wrote it: with what the user had changed, and nothing else of its recipe."""
    rest = {name: value for name, value in record_.provenance.items() if name not in ("variant", "recipe_digest")}
    return Record(record_.data | {"provenance": rest | ({"changed": changed} if changed else {})})


@pytest.mark.parametrize(
    ("changed", "name", "reason"),
    [
        (None, "earlier version", "version"),
        ({"model": {"init_args": {"lr": 0.1}}}, "model.lr 0.1, earlier version", "settings, version"),
    ],
)
def test_records_of_an_earlier_version_are_called_that_and_never_merged(
    changed: dict[str, Any] | None, name: str, reason: str
) -> None:
    old = [former(one, changed) for one in GRID[1:]]
    chosen = select([*old, GRID[0]])
    assert {one.variant for one in chosen.records} == {"", name}
    assert [one.cell.seed for one in chosen.records if not one.variant] == [GRID[0].cell.seed], "fewer, but today's"
    assert chosen.notes == [f"clipfit: 2 rows, which are kept apart by {reason}"]
    alone = select(old)
    assert {one.variant for one in alone.records} == {name}
    assert alone.notes == []


@pytest.mark.parametrize(
    "other", [{"shots": 4}, {"setting": "fixed"}, {"backbone": "RN50/openai"}, {"protocol": "few_shot"}, {"suite": "x"}]
)
def test_rows_that_differ_in_identity_never_merge(other: dict[str, Any]) -> None:
    more = [made("clipfit", name, seed, 10, cell=other) for name in SUITE["mini"] for seed in (1, 2, 3)]
    frame = frame_of([*GRID, *more])
    averages = frame[frame["dataset"] == "average"]
    assert sorted(averages["base"].fillna(averages["accuracy"])) == [25.0, 70.0]


def test_recipes_are_ordered_by_h_and_incomplete_ones_come_last() -> None:
    def grid(recipe: str, base: int, novel: int, seeds: tuple[int, ...] = (1,)) -> list[Record]:
        return [made(recipe, name, seed, base, novel) for name in SUITE["mini"] for seed in seeds]

    frame = frame_of([*grid("a", 40, 10), *grid("b", 26, 24), *grid("c", 40, 40)[:1], *grid("d", 10, 10)])
    assert list(frame["recipe"].unique()) == ["b", "a", "d", "c"]
    assert list(frame[frame["recipe"] == "b"]["dataset"]) == ["dtd", "eurosat", "average"]


def test_what_follows_from_the_seed_keeps_no_rows_apart() -> None:
    """On real data the digest of the files covers the draw."""
    some = [
        made("clipfit", name, seed, 30, provenance={"draw_digest": f"d{seed}", "files_digest": f"f{seed}"})
        for name in SUITE["mini"] for seed in (1, 2, 3)
    ]  # fmt: skip
    frame = frame_of(some)
    assert set(frame["variant"]) == {""}
    assert row(frame, "average").seeds == "1,2,3"


def test_few_shot_has_accuracy_alone() -> None:
    some = [made("clipfit", name, 1, 30, cell={"protocol": "few_shot"}) for name in SUITE["mini"]]
    average = row(frame_of(some), "average")
    assert average.accuracy == 75.0
    assert all(math.isnan(average[name]) for name in ("base", "novel", "h"))
    assert average.novel_rule == ""


def test_one_frozen_cell_marks_the_row() -> None:
    odd = record(GRID[5].cell, base=28, novel=38)
    odd["splits"]["novel"]["novel_rule"] = "frozen"
    frame = frame_of([*GRID[:5], Record(odd)])
    assert (row(frame, "eurosat").novel_rule, row(frame, "dtd").novel_rule) == ("frozen", "own")
    assert row(frame, "average").novel_rule == "frozen"


def test_costs_are_means_but_the_peak_is_the_largest() -> None:
    costs = [{"train_seconds": 1.0, "peak_bytes": 10}, {"train_seconds": 2.0, "peak_bytes": None}]
    some = [made("clipfit", name, 1, 20, cost=cost) for name, cost in zip(SUITE["mini"], costs, strict=True)]
    average = row(frame_of(some), "average")
    assert (average.train_seconds, average.peak_bytes) == (1.5, 10)
    some.append(made("clipfit", "dtd", 2, 20, cost={"peak_bytes": 30}))
    assert row(frame_of(some), "dtd").peak_bytes == 30
    assert math.isnan(row(frame_of(some), "eurosat").peak_bytes)


def test_a_dataset_outside_of_the_suite_is_shown_but_not_averaged() -> None:
    frame = frame_of([*GRID, made("clipfit", "mine", 1, 40, 40)])
    assert row(frame, "mine").base == 100.0
    assert row(frame, "average").base == 70.0
    assert row(frame, "average").cells == 6


def test_a_suite_without_a_list_has_the_datasets_of_its_records() -> None:
    other = [made("coop", "dtd", 1, 30)]
    frame = frame_of([*GRID, *other], suite={})
    assert row(frame, "average", "coop").cells_expected == 2, "a neighbour has eurosat as well"
    assert math.isnan(row(frame, "average", "coop").base)


@settings(max_examples=30, deadline=None)
@given(
    counts=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=12, max_size=12),
    shuffle=st.randoms(use_true_random=False),
)
def test_the_order_of_files_does_not_matter(counts: list[tuple[int, int]], shuffle: random.Random) -> None:
    places = [(recipe, name, seed) for recipe in ("a", "b") for name in SUITE["mini"] for seed in (1, 2, 3)]
    some = [made(*place, base, novel) for place, (base, novel) in zip(places, counts, strict=True)]
    mixed = list(some)
    shuffle.shuffle(mixed)
    pd.testing.assert_frame_equal(frame_of(mixed), frame_of(some), check_exact=True)


def test_an_empty_folder_gives_an_empty_frame() -> None:
    assert list(aggregate([]).columns) == [*COLUMNS, *SPREADS, "pretrained", "own_data", "beside"]
    assert aggregate([]).empty


def transfer(seed: int, source: int, **right: int) -> Record:
    """A record of cross_dataset: images of 40 that are right, of the source and of each target."""
    data = made("coop", "imagenet", seed, 30, 20, cell={"protocol": "cross_dataset"}).data
    split = data["splits"]["novel"]
    counted = {
        name: split | {"correct": count, "total": 40, "trained": name == "source", "novel_rule": "own"}
        for name, count in {"source": source, **right}.items()
    }
    tested = data["provenance"] | {"targets": {name: {"split_hash": name, "templates": ["a {}."]} for name in right}}
    return Record(data | {"splits": counted, "provenance": tested})


def test_a_transfer_makes_a_row_a_target_and_averages_over_them_alone() -> None:
    suite = {"mini": ["imagenet", "dtd", "eurosat"]}
    frame = aggregate(cells_of([transfer(1, 40, dtd=10, eurosat=20), transfer(2, 40, dtd=14, eurosat=24)]), (), suite)
    assert list(frame["dataset"]) == ["dtd", "eurosat", "imagenet", "average"]
    assert list(frame["accuracy"]) == [30.0, 55.0, 100.0, 42.5]
    assert frame["accuracy_std"].iloc[-1] == pytest.approx(statistics.stdev([37.5, 47.5]))
    assert list(frame["averaged"]) == ["", "", "", "2/2"]
    assert frame["base"].isna().all()


def test_a_missing_transfer_is_missing_from_every_target() -> None:
    suite = {"mini": ["imagenet", "dtd", "eurosat"]}
    absent = cell(recipe="coop", dataset="imagenet", seed=2, protocol="cross_dataset")
    frame = aggregate(cells_of([transfer(1, 40, dtd=10, eurosat=20)]), [absent], suite)
    found = {row["dataset"]: (row["cells"], row["cells_expected"]) for row in rows_of(frame)}
    assert found == {"dtd": (1, 2), "eurosat": (1, 2), "imagenet": (1, 2), "average": (2, 4)}
    assert math.isnan(frame["accuracy"].iloc[-1])


def test_records_of_one_training_on_different_targets_are_one_row() -> None:
    chosen = select([transfer(1, 40, dtd=10), measured_later(transfer(1, 40, eurosat=20))])
    assert not chosen.notes
    (record,) = chosen.records
    assert record.measured == ["dtd", "eurosat"]
    assert [record.accuracy(name) for name in record.measured] == [25.0, 50.0]


@pytest.mark.parametrize("former", [{"dtd": 12}, {"dtd": 10, "eurosat": 3}])
def test_the_later_measurement_of_a_target_counts(former: dict[str, int]) -> None:
    (record,) = select([transfer(1, 40, **former), measured_later(transfer(1, 40, dtd=20, eurosat=30))]).records
    assert [record.accuracy(name) for name in ("dtd", "eurosat")] == [50.0, 75.0]


def test_another_training_or_other_images_of_a_target_stay_apart() -> None:
    first = transfer(1, 40, dtd=10)
    other = measured_later(transfer(1, 40, eurosat=20))
    other.data["provenance"]["draw_digest"] = "another draw"
    (record,) = select([first, other]).records
    assert record.measured == ["eurosat"]
    for what in ("split_hash", "templates"):
        moved = measured_later(transfer(2, 40, dtd=20))
        moved.data["provenance"]["targets"]["dtd"][what] = ["another"]
        assert len({one.variant for one in select([first, moved]).records}) == 2
    other = measured_later(transfer(2, 40, dtd=20))
    other.data["provenance"]["targets"]["dtd"]["templates"] = ["another"]
    other.data["cell"]["recipe"] = "maple"  # it has its own sentences
    assert {one.variant for one in select([first, other]).records} == {""}


def measured_later(record: Record) -> Record:
    record.data["environment"]["finished"] = "2030-01-01T00:00:00+00:00"
    return record
