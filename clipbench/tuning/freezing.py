"""How entries stop being trained in the middle of a run: exactly, or by a mask as the published FisherAdapTune does it.

A freezing is told which pieces of tensors to freeze between a backward pass and the optimiser's step, and is asked
before and after every step to see to them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from clipbench.tuning.fisher_groups import Piece


class Freezing(ABC):
    """What is frozen of some tensors.

    Args:
        tensors: the trained parameters by name, of which pieces are frozen.
        optimizers: every optimiser that updates these parameters; their state is cleared where something is frozen.
    """

    def __init__(self, tensors: Mapping[str, nn.Parameter], optimizers: Sequence[Optimizer]) -> None:
        self.tensors, self.optimizers = tensors, list(optimizers)
        self.frozen: dict[str, list[Piece]] = {}

    def is_whole(self, name: str) -> bool:
        """Whether every entry of the tensor of that name is frozen."""
        return sum(piece.size for piece in self.frozen.get(name, ())) == self.tensors[name].numel()

    def active(self, name: str) -> Tensor:
        """Which entries of the tensor of that name are still trained: bool, of the tensor's shape."""
        mask = torch.ones_like(self.tensors[name], dtype=torch.bool)
        for piece in self.frozen.get(name, ()):
            piece.of(mask).fill_(False)
        return mask

    def _note(self, pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            self.frozen.setdefault(piece.tensor, []).append(piece)

    def _clear_state(self, piece: Piece) -> None:
        """Set what the optimiser remembers of some entries to 0."""
        tensor = self.tensors[piece.tensor]
        for optimizer in self.optimizers:
            for value in optimizer.state.get(tensor, {}).values():
                if isinstance(value, Tensor) and value.shape == tensor.shape:
                    piece.of(value).zero_()

    @abstractmethod
    def freeze(self, pieces: Sequence[Piece]) -> None:
        """Freeze these pieces of tensors for ever; to be called between the backward pass and the optimiser's step."""

    def resume(self, pieces: Sequence[Piece]) -> None:
        """Freeze again the pieces that were frozen when a checkpoint was written."""
        self.freeze(pieces)

    @abstractmethod
    def before_step(self) -> None:
        """To be called before every step of the optimiser: gradients of frozen entries are set to 0."""

    @abstractmethod
    def after_step(self) -> None:
        """To be called after every step of the optimiser: values of frozen entries are put back, if they are kept."""


class ExactFreezing(Freezing):
    """Frozen values stay bit-identical, and frozen tensors cost nothing any more.

    A tensor frozen whole loses its gradient, its optimiser state and `requires_grad`: from the next step on it is not
    part of the graph, and the backward pass ends where nothing below is trained. Of a tensor frozen in part the frozen
    entries are put back after every step, whatever the optimiser did with them.
    """

    def __init__(self, tensors: Mapping[str, nn.Parameter], optimizers: Sequence[Optimizer]) -> None:
        super().__init__(tensors, optimizers)
        self._kept: dict[str, list[tuple[Piece, Tensor]]] = {}

    def freeze(self, pieces: Sequence[Piece]) -> None:
        """See `Freezing`."""
        self._note(pieces)
        for name in dict.fromkeys(piece.tensor for piece in pieces):
            tensor = self.tensors[name]
            if self.is_whole(name):
                self._restore(name)
                self._kept.pop(name, None)
                tensor.grad = None
                tensor.requires_grad_(False)
                for optimizer in self.optimizers:
                    optimizer.state.pop(tensor, None)
        for piece in pieces:
            if not self.is_whole(piece.tensor):
                value = piece.of(self.tensors[piece.tensor].detach()).clone()
                self._kept.setdefault(piece.tensor, []).append((piece, value))
                self._clear_state(piece)
        self.before_step()

    def before_step(self) -> None:
        """See `Freezing`."""
        for name, kept in self._kept.items():
            gradient = self.tensors[name].grad
            if gradient is not None:
                for piece, _ in kept:
                    piece.of(gradient).zero_()

    def after_step(self) -> None:
        """See `Freezing`."""
        for name in self._kept:
            self._restore(name)

    def _restore(self, name: str) -> None:
        with torch.no_grad():
            for piece, value in self._kept.get(name, ()):
                piece.of(self.tensors[name]).copy_(value)


class MaskedFreezing(Freezing):
    """Frozen entries get a gradient of 0, as published; nothing is saved, and tensors frozen whole drift on.

    The drift: when a tensor becomes frozen whole its optimiser state is set to 0, but its gradient of this very step is
    let through, and the momentum that the step builds carries on: with AdamW by about sqrt(1000 (1 - 0.999^t)) learning
    rates after a freeze at step t [measured with the published trainer]. Entries of a tensor frozen in part stay.

    Args:
        tensors: the trained parameters by name, of which pieces are frozen.
        optimizers: every optimiser that updates these parameters; their weight decay is set to 0 and applied here,
            decoupled, to active entries alone.
    """

    def __init__(self, tensors: Mapping[str, nn.Parameter], optimizers: Sequence[Optimizer]) -> None:
        super().__init__(tensors, optimizers)
        self.decays = [[group.get("weight_decay", 0.0) for group in o.param_groups] for o in self.optimizers]
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["weight_decay"] = 0.0

    def freeze(self, pieces: Sequence[Piece]) -> None:
        """See `Freezing`."""
        self._note(pieces)
        for piece in pieces:
            self._clear_state(piece)
            gradient = self.tensors[piece.tensor].grad
            if gradient is not None and not self.is_whole(piece.tensor):
                piece.of(gradient).zero_()

    def resume(self, pieces: Sequence[Piece]) -> None:
        """See `Freezing`; the momentum that drifts on is part of the checkpoint."""
        self._note(pieces)

    def before_step(self) -> None:
        """See `Freezing`."""
        for name, pieces in self.frozen.items():
            gradient = self.tensors[name].grad
            if gradient is not None:
                for piece in pieces:
                    piece.of(gradient).zero_()

    def decay(self) -> None:
        """w <- w (1 - lr * weight decay) for active entries; right before the optimiser's step.

        A tensor without a dimension belongs to no group, and as published nothing decays it.
        """
        names = {id(tensor): name for name, tensor in self.tensors.items()}
        with torch.no_grad():
            for optimizer, decays in zip(self.optimizers, self.decays, strict=True):
                for group, decay in zip(optimizer.param_groups, decays, strict=True):
                    factor = 1 - group["lr"] * decay
                    for tensor in group["params"] if decay else ():
                        if tensor.ndim == 0:
                            continue
                        name = names.get(id(tensor), "")
                        if not self.frozen.get(name):
                            tensor.mul_(factor)
                        elif not self.is_whole(name):
                            tensor.copy_(torch.where(self.active(name), tensor * factor, tensor))

    def after_step(self) -> None:
        """See `Freezing`."""
