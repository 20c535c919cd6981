"""Arguments in Python, where no parser has read them: a wrong type or name is one sentence, for every method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from clipbench.argument_types import refuse_wrong_types
from clipbench.data.module import FewShotDataModule, ImageFolder, Manifest
from clipbench.errors import ConfigError, UnknownName
from clipbench.methods import METHODS, method_class
from clipbench.methods.arguments import settings_of


@pytest.mark.parametrize(("name", "setting"), [(n, s) for n in METHODS for s in settings_of(method_class(n))])
def test_a_value_of_another_type_is_one_sentence(name: str, setting: str) -> None:
    wrong = object()
    with pytest.raises(ConfigError, match=rf"{name}\({setting}=.*\): {setting} is ") as error:
        method_class(name)(**{setting: wrong})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", METHODS)
def test_an_unknown_argument_names_the_nearest(name: str) -> None:
    with pytest.raises(UnknownName, match=f"unknown setting of {name} 'learning_rate'"):
        method_class(name)(learning_rate=0.1)


def test_a_number_is_no_text() -> None:
    with pytest.raises(ConfigError, match=r"CLIPFit\(lr='0.1'\): lr is a number or None"):
        method_class("CLIPFit")(lr="0.1")


DATA = (FewShotDataModule, ImageFolder, Manifest)


@pytest.mark.parametrize(("kind", "s"), [(kind, setting) for kind in DATA for setting in settings_of(kind)])
def test_of_data_too(kind: type, s: str) -> None:
    needed = {"root": "x"} if kind is ImageFolder else {"path": "x"} if kind is Manifest else {}
    with pytest.raises(ConfigError, match=rf"{kind.__name__}\({s}=.*\): {s} is "):
        kind(**(needed | {s: object()}))


class Stated:
    def __init__(
        self, whole: int, number: float, text: str, switch: bool, choice: Literal["a", "b"], pair: tuple[float, float],
        names: Sequence[str], table: dict[str, Any] | None = None, other: Path | None = None, untyped=None,
    ) -> None: ...  # fmt: skip


@pytest.mark.parametrize(
    ("values", "fits"),
    [
        ({"whole": 1}, True), ({"whole": np.int64(1)}, True), ({"whole": True}, False), ({"whole": 1.0}, False),
        ({"number": 1}, True), ({"number": np.float32(1)}, True), ({"number": False}, False), ({"number": "1"}, False),
        ({"text": "a"}, True), ({"text": Path("a")}, True), ({"text": b"a"}, False), ({"text": None}, False),
        ({"switch": True}, True), ({"switch": 1}, False), ({"choice": "a"}, True), ({"choice": "c"}, False),
        ({"choice": ["a"]}, False), ({"pair": (1, 2.0)}, True), ({"pair": [1, 2]}, True), ({"pair": (1,)}, False),
        ({"pair": ("a", 1)}, False), ({"names": ["a"]}, True), ({"names": "a"}, False), ({"names": [1]}, False),
        ({"table": {}}, True), ({"table": None}, True), ({"table": [1]}, False), ({"other": Path()}, True),
        ({"other": "a"}, False), ({"untyped": object()}, True), ({"unknown": object()}, True),
    ],
)  # fmt: skip
def test_what_fits_a_stated_type(values: Mapping[str, Any], fits: bool) -> None:
    if fits:
        refuse_wrong_types(Stated, values)
        return
    with pytest.raises(ConfigError):
        refuse_wrong_types(Stated, values)
