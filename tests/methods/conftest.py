"""A small backbone with random weights, and methods bound to a task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from clipbench.data.task import Task, TestSplit
from clipbench.methods.base import Method
from clipbench.testing.backbones import write_transformer

BASE = ("annual crop land", "forest", "golden retriever")
NOVEL = ("2012 acura rl sedan", "sea_or_lake")


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name of a backbone with two small random transformer towers."""
    return write_transformer(tmp_path_factory.mktemp("backbone") / "small")


@pytest.fixture
def make(small: str) -> Iterator[Callable[..., Method]]:
    """Make a method, bound and built; the shared backbone is given back afterwards."""
    made: list[Method] = []

    def build(kind: type[Method], templates: tuple[str, ...] = ("a photo of a {}.",), **arguments: Any) -> Method:
        method = kind(**({"backbone": small} | arguments))
        method.bind(
            Task("toys", None, BASE, (TestSplit("base", BASE, True), TestSplit("novel", NOVEL, False))), templates, 1
        )
        made.append(method)  # before: a build that fails leaves things behind too
        method.configure_model()
        return method

    yield build
    for method in made:
        method.release()
