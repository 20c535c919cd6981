"""Lending the shared backbone's tensors and Linears to a method, and getting every one of them back bit-identical."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from clipbench.errors import BackboneError, UnknownName

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


@runtime_checkable
class Mergeable(Protocol):
    """A swapped-in module that a plain Linear can stand for in eval mode."""

    def merged(self) -> nn.Linear:
        """A new Linear with the same outputs."""


@runtime_checkable
class Interpolable(Protocol):
    """A swapped-in module that knows how to go back towards the Linear it stands for."""

    def interpolate(self, alpha: float) -> None:
        """Outputs of the Linear at alpha 0, of the module as it is at alpha 1."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Every module's."""


class Lending(nn.Module):
    """A module whose parts are lent: base of `Backbone`.

    Names are always those of the loaded backbone, also while a Linear is swapped.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pristine: dict[str, Tensor] = {}
        self._swapped: dict[str, tuple[nn.Module, nn.Module]] = {}
        self._merged: dict[str, nn.Module] = {}
        self._seen_through: dict[str, nn.Module] = {}

    def lend(self, names: Iterable[str]) -> dict[str, nn.Parameter]:
        """Make tensors trainable, in place; the loaded values are kept aside.

        Args:
            names: of parameters, for example "text.blocks.0.mlp.proj.bias".

        Returns:
            Name and live parameter, `requires_grad` set.

        Raises:
            UnknownName: no such tensor.
        """
        with self._original():
            known = dict(self.named_parameters())
        lent = {}
        for name in names:
            if name not in known:
                raise UnknownName("tensor of the backbone", name, known)
            self._pristine.setdefault(name, known[name].detach().clone())
            known[name].requires_grad_(True)
            lent[name] = known[name]
        return lent

    def reparametrise(self, linear_name: str, factory: Callable[[nn.Linear], nn.Module]) -> nn.Module:
        """Put another module where a Linear is.

        Args:
            linear_name: for example "image.blocks.3.attn.q_proj".
            factory: from the Linear (which may be kept inside) to a module with the same inputs and outputs. If the
                module is random in training, it says so by an attribute `stochastic`, or holds a dropout.

        Returns:
            The new module.

        Raises:
            UnknownName: no such module.
            BackboneError: it is not a Linear, or has been swapped already.
        """
        if linear_name in self._swapped:
            raise BackboneError(f"'{linear_name}' of the backbone has been re-parametrised already")
        with self._original():
            modules = dict(self.named_modules())
        if linear_name not in modules:
            linears = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
            raise UnknownName("Linear of the backbone", linear_name, linears)
        linear = modules[linear_name]
        if not isinstance(linear, nn.Linear):
            raise BackboneError(f"'{linear_name}' of the backbone is a {type(linear).__name__}, not a Linear")
        module = factory(linear)
        self._swapped[linear_name] = (linear, module)
        self._place(linear_name, module)
        return module

    def reparametrise_tensor(self, name: str, module: nn.Module) -> None:
        """Let a bare parameter, such as a tower's `proj`, be seen through a module: `module(tensor)` in its place.

        Args:
            name: for example "image.proj".
            module: from the tensor to one of its shape.

        Raises:
            UnknownName: no such tensor.
            BackboneError: it is seen through a module already.
        """
        if name in self._seen_through:
            raise BackboneError(f"'{name}' of the backbone has been re-parametrised already")
        with self._original():
            known = dict(self.named_parameters())
        if name not in known:
            raise UnknownName("tensor of the backbone", name, known)
        self._seen_through[name] = module
        self._look_through(name, module)

    def overwrite(self, tensors: Mapping[str, Tensor]) -> None:
        """Set loaded tensors to other values, frozen; `restore` brings the loaded ones back.

        Args:
            tensors: name -> value of the same shape.

        Raises:
            UnknownName: no such tensor.
            BackboneError: a value of another shape.
        """
        with self._original(), torch.no_grad():
            known = dict(self.named_parameters())
            for name, value in tensors.items():
                if name not in known:
                    raise UnknownName("tensor of the backbone", name, known)
                if value.shape != known[name].shape:
                    shapes = f"{tuple(value.shape)} instead of {tuple(known[name].shape)}"
                    raise BackboneError(f"a value for '{name}' of the backbone has shape {shapes}")
                self._pristine.setdefault(name, known[name].detach().clone())
                known[name].copy_(value)

    def swapped(self) -> list[tuple[str, nn.Module]]:
        """Name and module of everything that stands in the place of a Linear or that a tensor is seen through."""
        return [(name, module) for name, (_, module) in self._swapped.items()] + list(self._seen_through.items())

    def merge(self) -> None:
        """Put plain Linears in the places of swapped modules that can be written as one (`merged()`), for inference."""
        for name, (_, module) in self._swapped.items():
            if name not in self._merged and isinstance(module, Mergeable):
                self._merged[name] = module.merged().eval().requires_grad_(False)
                self._place(name, self._merged[name])

    def unmerge(self) -> None:
        """Undo `merge`."""
        for name in self._merged:
            self._place(name, self._swapped[name][1])
        self._merged = {}

    def changed_tensors(self) -> dict[str, Tensor]:
        """The tensors that may differ from the loaded ones, as they are now, detached: lent, overwritten or merged.

        Modules that cannot be written into the weights (adapters) are left out.
        """
        with self._original():
            now = dict(self.named_parameters())
            changed = {name: now[name].detach() for name in self._pristine}
        for name, module in self._seen_through.items():
            with torch.no_grad():
                changed[name] = module(changed.get(name, now[name].detach()))
        for name, (linear, module) in self._swapped.items():
            if isinstance(module, Mergeable):
                before = dict(linear.named_parameters())
                for leaf, tensor in module.merged().named_parameters():
                    if not torch.equal(tensor, before[leaf]):
                        changed[f"{name}.{leaf}"] = tensor.detach()
        return changed

    def size(self) -> int:
        """How many parameters were loaded, whatever has been swapped in since."""
        with self._original():
            return sum(parameter.numel() for parameter in self.parameters())

    def restore(self) -> None:
        """Undo everything lent and swapped: tensors bit-identical to what was loaded, nothing trainable."""
        self.unmerge()
        for name in self._seen_through:
            self._look_straight(name)
        self._seen_through = {}
        device = next(self.parameters()).device
        for name, (linear, _) in self._swapped.items():
            self._place(name, linear.to(device))  # it may not have been part of the module when that was moved
        self._swapped = {}
        parameters = dict(self.named_parameters())
        with torch.no_grad():
            for name, value in self._pristine.items():
                parameters[name].copy_(value)
        self._pristine = {}
        for parameter in parameters.values():
            parameter.requires_grad_(False)
            parameter.grad = None

    def pristine(self, name: str) -> Tensor:
        """A tensor as it was loaded, detached.

        Raises:
            UnknownName: no such tensor.
        """
        if name in self._pristine:
            return self._pristine[name]
        with self._original():
            known = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        if name not in known:
            raise UnknownName("tensor of the backbone", name, known)
        return known[name].detach()

    @contextmanager
    def pristine_tensors(self) -> Iterator[None]:
        """Within this context the backbone is the one that was loaded: the frozen twin, without a second tower.

        Parameters are exchanged, not written, so a graph built outside stays valid.
        """
        live: dict[str, nn.Parameter | None] = {}
        with self._original():
            try:
                for name, value in self._pristine.items():
                    owner, leaf = self._owner(name)
                    live[name] = owner._parameters[leaf]
                    now = live[name]
                    owner._parameters[leaf] = nn.Parameter(value.to(now) if now is not None else value, False)
                yield
            finally:
                for name, parameter in live.items():
                    owner, leaf = self._owner(name)
                    owner._parameters[leaf] = parameter

    @contextmanager
    def _original(self) -> Iterator[None]:
        """Within this context swapped Linears are in their places."""
        for name, (linear, _) in self._swapped.items():
            self._place(name, linear)
        for name in self._seen_through:
            self._look_straight(name)
        try:
            yield
        finally:
            for name, (_, module) in self._swapped.items():
                self._place(name, self._merged.get(name, module))
            for name, module in self._seen_through.items():
                self._look_through(name, module)

    def _owner(self, name: str) -> tuple[nn.Module, str]:
        """The module that holds a tensor or module, and the last part of the name."""
        path, _, leaf = name.rpartition(".")
        return self.get_submodule(path), leaf

    def _place(self, name: str, module: nn.Module) -> None:
        owner, leaf = self._owner(name)
        setattr(owner, leaf, module)

    def _look_through(self, name: str, module: nn.Module) -> None:
        owner, leaf = self._owner(name)
        parametrize.register_parametrization(owner, leaf, module, unsafe=True)

    def _look_straight(self, name: str) -> None:
        owner, leaf = self._owner(name)
        if parametrize.is_parametrized(owner, leaf):
            parametrize.remove_parametrizations(owner, leaf, leave_parametrized=False)

    def is_random(self, tower: str) -> bool:
        """Whether something swapped into a tower, and in its place now, draws noise."""
        return any(
            name.startswith(f"{tower}.") and _draws_noise(module) and self.get_submodule(name) is module
            for name, (_, module) in self._swapped.items()
        )

    def train(self, mode: bool = True) -> Lending:
        """Frozen modules stay in eval mode; only what was swapped in follows `mode`."""
        super().train(False)
        for _, module in self._swapped.values():
            module.train(mode)
        for module in self._seen_through.values():
            module.train(mode)
        return self


def _draws_noise(module: nn.Module) -> bool:
    """Whether a module is random now: it says so, or holds an active dropout."""
    stated = getattr(module, "stochastic", None)
    if stated is not None:
        return bool(stated) and module.training
    return any(isinstance(part, DROPOUTS) and part.training and part.p > 0 for part in module.modules())
