"""What `start:` begins from: the weights that another method learned, read from its deliverable."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from clipbench.backbone.clip import Backbone
from clipbench.errors import ConfigError, MethodError
from clipbench.methods.base import Method
from clipbench.methods.deliverable import load_into, method_of, read_header


def inner_method(path: Path, backbone: Backbone) -> Method:
    """The method of a deliverable, built on a backbone that is at hand, with what it learned in place.

    Args:
        path: the deliverable.
        backbone: free; it is lent to the method, so `backbone.restore()` ends it.

    Raises:
        ConfigError: there is no such file.
        MethodError: its method is not installed, or it was learned on another backbone.
    """
    if not path.is_file():
        raise ConfigError(f"start: there is no deliverable '{path}' (a recipe's name is for `clipbench bench`)")
    method = method_of(read_header(path), path, backbone.spec.name)
    method.adopt(backbone)
    load_into(method, path)
    return method


def learned_weights(path: Path, backbone: Backbone) -> dict[str, Tensor]:
    """The tensors of the backbone as a deliverable leaves them, where it changes them; the backbone is left untouched.

    Raises:
        ConfigError: there is no such file.
        MethodError: part of what was learned (prompts, adapters) is not in the weights.
    """
    try:
        method = inner_method(path, backbone)
        if not method.lies_in_the_weights():
            raise MethodError(f"start: what {type(method).__name__} learned ('{path}') is not in the weights alone")
        return {name: tensor.clone() for name, tensor in backbone.changed_tensors().items()}
    finally:
        backbone.restore()
