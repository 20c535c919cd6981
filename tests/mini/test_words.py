"""The words: the same in class names, grids and wordings."""

from __future__ import annotations

import pytest

from clipbench.mini.words import FAMILIES, family


def test_eleven_families_with_the_keys_of_the_real_eleven() -> None:
    keys = (
        "imagenet caltech101 oxford_pets stanford_cars oxford_flowers food101 fgvc_aircraft sun397 dtd eurosat ucf101"
    )
    assert [one.key for one in FAMILIES] == keys.split()
    assert sum(one.classes for one in FAMILIES) == 154


@pytest.mark.parametrize("one", FAMILIES, ids=lambda one: one.name)
def test_a_class_name_says_every_factor_and_only_its_own(one) -> None:
    grid = one.grid()
    names = [one.phrase(values) for values in grid]
    assert len(set(names)) == len(grid)
    for values, name in zip(grid, names, strict=True):
        for value in values:
            assert value in name.split()
    assert len(one.phrases) == 6
    assert all(one.stated(0))
    assert all(one.stated(1))
    assert any(not all(one.stated(form)) for form in range(6))
    assert "{}" in one.template


@pytest.mark.parametrize("one", FAMILIES, ids=lambda one: one.name)
def test_a_flip_keeps_every_label(one) -> None:
    assert not {"left", "right"} & {word for name in map(one.phrase, one.grid()) for word in name.split()}


def test_stated_reads_the_factors_off_the_wording() -> None:
    things = family("things")
    assert things.phrases[2] == "{colour} {shape}"
    assert things.stated(2) == (False, True, True)
    assert things.phrase(("striped", "red", "star"), 2) == "red star"


def test_an_unknown_family_is_named() -> None:
    with pytest.raises(KeyError, match="no family 'boats'"):
        family("boats")
