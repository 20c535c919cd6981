"""What a command line asks for."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from clipbench.errors import ConfigError, UnknownName
from clipbench.recipes.recipe import known_recipes
from clipbench.recipes.request import Request, request_from


def asked(**changes: object) -> Request:
    words: dict[str, object] = {
        "method": "clipfit", "suite": "mini", "datasets": "", "seeds": "1", "shots": 16, "protocol": "base_to_novel",
        "backbone": None, "setting": "paper", "root": None, "config": [], "set": [], "jobs": None,
    }  # fmt: skip
    return request_from(argparse.Namespace(**(words | changes)))


def names(request: Request) -> list[str]:
    return [recipe.name for recipe in request.recipes]


def test_all_is_every_recipe_once() -> None:
    assert names(asked(method="all")) == list(known_recipes())
    assert names(asked(method="coop,all")) == ["coop", *(name for name in known_recipes() if name != "coop")]


def test_words_are_separated_by_commas_or_blanks_and_meant_once() -> None:
    request = asked(method="coop clipfit,coop", seeds="2,1,2", datasets="dtd eurosat")
    assert names(request) == ["coop", "clipfit"]
    assert (request.seeds, request.datasets) == ((2, 1), ("dtd", "eurosat"))


def test_several_numbers_of_shots_are_as_many_grids() -> None:
    request = asked(shots="4,1 16,4")
    assert (request.shots, request.more_shots, request.all_shots) == (4, (1, 16), (4, 1, 16))
    single = [asked(shots=shots) for shots in (4, 1, 16)]
    assert list(request.each_shots()) == single
    assert list(single[0].each_shots()) == [single[0]]


def test_what_a_config_says_for_readers_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("title: Mine\nparameters: 7\ntrainer: {max_epochs: 3}\n")
    assert asked(config=[str(file)]).user[0] == {"trainer": {"max_epochs": 3}}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"method": " "}, ConfigError, "names no recipe"),
        ({"method": "clipfti"}, UnknownName, "clipfit"),
        ({"suite": "minni"}, UnknownName, "mini"),
        ({"datasets": "dtdd"}, UnknownName, "dtd"),
        ({"seeds": "one"}, ConfigError, "whole numbers"),
        ({"seeds": "1_0"}, ConfigError, "whole numbers"),
        ({"seeds": "1.0"}, ConfigError, "whole numbers"),
        ({"seeds": "\u0661"}, ConfigError, "whole numbers"),
        ({"seeds": "-1"}, ConfigError, "from 0 to 4294967295"),
        ({"seeds": str(2**32)}, ConfigError, "from 0 to 4294967295"),
        ({"seeds": "9" * 5000}, ConfigError, "from 0 to 4294967295"),
        ({"shots": 0}, ConfigError, "images per class, from 1 to"),
        ({"shots": 10**9}, ConfigError, "images per class, from 1 to"),
        ({"shots": "1,0"}, ConfigError, "images per class, from 1 to"),
        ({"shots": "1,two"}, ConfigError, "--shots 1,two"),
        ({"shots": "1.5"}, ConfigError, "several are separated by commas"),
        ({"shots": ","}, ConfigError, "images per class"),
        ({"shots": "9" * 5000}, ConfigError, "images per class"),
        ({"jobs": 0}, ConfigError, "at least one process"),
        ({"protocol": "base2novel"}, UnknownName, "base_to_novel"),
    ],
)
def test_senseless_words_are_refused(changes: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        asked(**changes)
