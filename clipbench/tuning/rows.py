"""Rows of a tensor that belongs to the trained classes: one a class, in the order of other lists of their names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clipbench.errors import UnknownName


def rows_of(tensor: Tensor, classnames: Sequence[str], trained: Sequence[str], method: str) -> Tensor:
    """The rows of some trained classes, (C, ...); the tensor itself where these are all of them in their order.

    Args:
        tensor: a row for each trained class.
        classnames: whose rows.
        trained: the classes that were trained on, in the order of the rows.
        method: for the message.

    Raises:
        UnknownName: a class that was not trained on.
    """
    if tuple(classnames) == tuple(trained):
        return tensor
    place = {name: row for row, name in enumerate(trained)}
    for name in classnames:
        if name not in place:
            raise UnknownName(f"class of this {method}", name, place)
    return tensor[torch.tensor([place[name] for name in classnames], device=tensor.device)]
