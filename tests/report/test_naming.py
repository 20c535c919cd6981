"""Names in figures: each point in one place, the front first, never more than can be read, looks that differ."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clipbench.report.naming import BEST, LEGEND, MOST, choose_names, mark, pareto


@given(points=st.lists(st.tuples(st.integers(1, 8).map(float), st.integers(1, 8).map(float)), max_size=12))
def test_pareto_against_brute_force(points: list[tuple[float, float]]) -> None:
    def beaten(index: int) -> bool:
        cost, value = points[index]
        return any(c <= cost and v >= value and (c, v) != (cost, value) for c, v in points)

    got = pareto(points)
    assert sorted(got) == [index for index in range(len(points)) if not beaten(index)]
    assert [points[index][0] for index in got] == sorted(points[index][0] for index in got)


@given(
    values=st.lists(st.floats(0, 100), max_size=120),
    front=st.sets(st.integers(0, 119), max_size=40),
    unranked=st.sets(st.integers(0, 119), max_size=40),
)
def test_each_point_is_in_one_place_and_the_front_comes_first(
    values: list[float], front: set[int], unranked: set[int]
) -> None:
    front, unranked = ({i for i in some if i < len(values)} for some in (front, unranked))
    naming = choose_names(values, front - unranked, unranked=unranked)
    assert sorted([*naming.beside, *naming.listed, *naming.nameless]) == list(range(len(values)))
    assert len(naming.beside) <= MOST
    assert len(naming.listed) <= LEGEND
    corners = front - unranked
    if len(corners) <= MOST:
        assert corners <= set(naming.beside)
    if len(values) > MOST:
        assert not unranked & set(naming.beside)
        assert len(naming.beside) <= max(len(corners), 0) + BEST


def test_with_few_points_all_are_named_and_with_more_the_others_are_listed_until_they_are_too_many() -> None:
    assert choose_names(range(MOST), []).beside == list(range(MOST))
    naming = choose_names(range(MOST + 1), [0], first=[1])
    assert naming.beside == [0, 1, *range(MOST + 1 - BEST, MOST + 1)]
    assert naming.listed == list(range(2, MOST + 1 - BEST))
    naming = choose_names(range(BEST + LEGEND + 1), [])
    assert (naming.listed, len(naming.nameless)) == ([], LEGEND + 1)


def test_marks_with_a_name_differ() -> None:
    assert len({str(mark(shape)) for shape in range(MOST + LEGEND)}) == MOST + LEGEND
