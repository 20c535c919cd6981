"""H against an exact oracle, and the properties that a mean must have."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipbench.report.harmonic import harmonic_mean

accuracy = st.floats(min_value=0, max_value=100, allow_nan=False)


@given(base=accuracy, novel=accuracy)
def test_h_lies_between_its_arguments_and_is_symmetric(base: float, novel: float) -> None:
    h = harmonic_mean(base, novel)
    assert h == harmonic_mean(novel, base)
    assert min(base, novel) <= h <= max(base, novel)
    assert h > 0 or min(base, novel) == 0


@given(base=st.integers(0, 50000), novel=st.integers(0, 50000))
def test_h_is_at_most_twice_the_smaller(base: int, novel: int) -> None:
    assert harmonic_mean(base / 500, novel / 500) <= 2 * min(base, novel) / 500 * (1 + 1e-14)


@given(base=accuracy)
def test_h_of_equals_is_the_same(base: float) -> None:
    assert harmonic_mean(base, base) == base


@given(base=st.integers(1, 10000), novel=st.integers(1, 10000))
def test_h_equals_the_exact_fraction(base: int, novel: int) -> None:
    exact = Fraction(2 * base * novel, 100 * (base + novel))
    assert harmonic_mean(base / 100, novel / 100) == pytest.approx(float(exact), rel=1e-14)


def test_h_of_the_literature_and_of_odd_values() -> None:
    assert round(harmonic_mean(69.34, 74.22), 2) == 71.70
    assert round(harmonic_mean(82.69, 63.22), 2) == 71.66
    assert harmonic_mean(0.0, 0.0) == 0.0
    assert math.isnan(harmonic_mean(math.nan, 3.0))
    assert math.isnan(harmonic_mean(0.0, math.nan))
    with pytest.raises(ValueError, match="negative"):
        harmonic_mean(-1.0, 5.0)
