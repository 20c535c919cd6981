"""A small backbone with random weights, and methods set up for a task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from clipbench.data.task import Task
from clipbench.methods.base import Method
from clipbench.testing.backbones import write_transformer
from tests.methods.small import BASE, TESTS

TEMPLATE = "a photo of a {}."


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name of a backbone with two small random transformer towers."""
    return write_transformer(tmp_path_factory.mktemp("backbone") / "small")


@pytest.fixture
def make(small: str) -> Callable[..., Any]:
    """Make a method, set up for base and novel classes."""

    def build(kind: type[Method], template: str = TEMPLATE, **arguments: Any) -> Method:
        method = kind(**({"backbone": small} | arguments))
        method.setup(task=Task("toys", template, BASE, TESTS))
        return method

    return build
