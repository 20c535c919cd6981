"""The summary against scipy, and against cells whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from clipbench.analysis.rows import framed
from clipbench.analysis.summary import lines_of, profile, spearman, summarise
from tests.analysis.frames import BIASES, NORMS, changes

FALLING = dict(zip(BIASES, [8.0, 4.0, 2.0, 1.0], strict=True))
RISING = dict(zip(BIASES, [1.0, 2.0, 4.0, 8.0], strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_spearman_is_scipys_also_with_ties(seed: int) -> None:
    draw = np.random.default_rng(seed)
    one, other = draw.integers(0, 6, 12), draw.integers(0, 6, 12)
    expected = stats.spearmanr(one, other).statistic
    assert spearman(pd.Series(one), pd.Series(other)) == pytest.approx(expected, abs=1e-12)


def test_spearman_of_nothing_to_compare_is_unknown() -> None:
    assert math.isnan(spearman(pd.Series([1.0]), pd.Series([1.0])))
    assert math.isnan(spearman(pd.Series([1.0, 1.0]), pd.Series([1.0, 2.0])))


def test_falling_and_rising_cells_are_told_apart() -> None:
    rows = summarise(framed(changes({"a": FALLING, "b": FALLING, "c": RISING})))
    row = next(row for row in rows if row["quantity"] == "mean_square")
    assert (row["group"], row["tensors"], row["cells"]) == ("text MLP bias", 4, 3)
    assert row["depth_rho"] == pytest.approx((-1 - 1 + 1) / 3)
    assert row["falls_in"] == 2
    assert row["first"] == BIASES[0]
    assert row["first_rank"] == pytest.approx((1 + 1 + 4) / 3)
    assert row["first_largest_in"] == 2
    assert row["first_over_median"] == pytest.approx((8 / 2 * 8 / 2 * 1 / 4) ** (1 / 3))
    assert (row["largest"], row["largest_in"]) == (BIASES[0], 2)
    assert row["path_rho"] == pytest.approx(1)


def test_what_gradient_scale_predicts_is_taken_out() -> None:
    """Tensors move by the same share of their gradient path: the order is all the path's."""
    paths = {name: math.sqrt(end) for name, end in FALLING.items()}
    rows = {row["quantity"]: row for row in summarise(framed(changes({"a": FALLING}, paths)))}
    assert rows["mean_square"]["depth_rho"] == rows["path_length"]["depth_rho"] == pytest.approx(-1)
    assert rows["per_path"]["first_over_median"] == pytest.approx(1)
    assert math.isnan(rows["per_path"]["path_rho"])


def test_the_first_norm_is_the_one_in_front_of_the_blocks() -> None:
    rows = summarise(framed(changes({"a": dict(zip(NORMS, [9.0, 1.0, 2.0, 3.0], strict=True))})))
    row = next(row for row in rows if row["quantity"] == "relative")
    assert (row["first"], row["first_rank"], row["largest"]) == (NORMS[0], 1, NORMS[0])
    assert row["first_over_median"] == pytest.approx(math.sqrt(9 / 2))


def test_a_tensor_that_some_cells_lack_is_left_out_there() -> None:
    rows = summarise(framed(changes({"a": FALLING, "b": {name: FALLING[name] for name in BIASES[1:]}})))
    row = next(row for row in rows if row["quantity"] == "mean_square")
    assert (row["cells"], row["first_largest_in"], row["first_rank"]) == (2, 1, 1)


def test_only_the_last_step_counts_and_an_end_state_needs_none() -> None:
    whole = changes({"a": FALLING})
    ends = [{k: v for k, v in row.items() if "step" not in k and k != "path_length"} for row in whole[-4:]]
    known = [row for row in summarise(framed(whole)) if row["quantity"] in ("mean_square", "relative")]
    assert [row | {"path_rho": None} for row in known] == [row | {"path_rho": None} for row in summarise(framed(ends))]


def test_the_profile_is_the_mean_and_spread_over_cells_in_order_of_depth() -> None:
    rows = profile(framed(changes({"a": FALLING, "b": RISING})))
    assert [row["tensor"] for row in rows] == BIASES
    assert rows[0]["sum_squares"] == pytest.approx(4.5)
    assert rows[0]["sum_squares_std"] == pytest.approx(np.std([8, 1], ddof=1))
    assert rows[0]["mean_square"] == pytest.approx(4.5 / 8)


def test_the_words_say_the_counts() -> None:
    text = "\n".join(lines_of(summarise(framed(changes({"a": FALLING, "b": RISING})))))
    assert "text MLP bias: 4 tensors, 2 cells" in text
    assert "1 of 2" in text
    assert "nan" not in text
