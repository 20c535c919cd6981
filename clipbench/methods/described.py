"""A method without weights: what it trains, by name and shape, before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clipbench.backbone.clip import describe_backbone
from clipbench.data.task import Task
from clipbench.methods.base import Method


def described_method(kind: type[Method], arguments: Mapping[str, Any], classes: int) -> Method:
    """A method built on a backbone without weights, for so many classes, and without its `start`.

    Raises:
        ConfigError: a wrong argument, or a selection that means nothing on this backbone.
        BackboneError: the backbone lacks an ability that the method needs.
    """
    method = kind(**(dict(arguments) | ({"start": None} if "start" in arguments else {})))
    names = ("first class", "second class", "third class")[:classes]
    template = "a photo of a {}."
    method.bind(Task("described", template, names, ()), (template,), 1)
    method.adopt(describe_backbone(arguments["backbone"]))
    return method
