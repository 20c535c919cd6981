"""A view of the backbone: one method's own structure on the shared, frozen tensors.

A view has its own modules and its own `Parameter` objects, which share the storage of the backbone's. What a method
trains is a clone (`unfreeze`), what it replaces is a new module or parameter; nothing is ever written into a shared
tensor. So the backbone stays bit-identical, and methods live side by side without knowing of each other.

Names of tensors and Linears are always those of the backbone, also where a Linear has been replaced.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from clipbench.backbone.model import Backbone
from clipbench.backbone.stand_ins import Mergeable, MergedLinears, draws_noise
from clipbench.errors import BackboneError, UnknownName


class BackboneView(Backbone):
    """A structural copy of a backbone on the same storage.

    Args:
        pretrained: the backbone; it stays as it is.

    Attributes:
        replaced: name of a Linear to the module that stands in its place, and name of a bare tensor to the module that
            it is seen through.
    """

    def __init__(self, pretrained: Backbone) -> None:
        memo: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in pretrained.parameters()}
        own = {name: memo[id(parameter)] for name, parameter in pretrained.named_parameters()}
        image, text = copy.deepcopy(pretrained.image, memo), copy.deepcopy(pretrained.text, memo)
        self.replaced: dict[str, nn.Module] = {}
        super().__init__(pretrained.spec, image, text, pretrained.logit_bias is not None)
        self.hash = pretrained.hash
        self.logit_scale = memo[id(pretrained.logit_scale)]
        if pretrained.logit_bias is not None:
            self.logit_bias = memo[id(pretrained.logit_bias)]
        self._mean, self._std = pretrained._mean.clone(), pretrained._std.clone()
        # outside of module registration, so that `to`, `state_dict` and `parameters` do not reach them
        object.__setattr__(self, "_loaded", pretrained)
        object.__setattr__(self, "pretrained", pretrained)
        self._tensors: dict[str, nn.Parameter] = own
        self._changed: set[str] = set()
        self._places = self._find_places()
        self._merged = MergedLinears()
        self._depth = 0  # of `merged` contexts

    _loaded: Backbone
    pretrained: Backbone
    """The backbone on the device and in the dtype of this view: the frozen twin."""

    def _find_places(self) -> dict[str, list[tuple[nn.Module, str]]]:
        """Where each tensor stands: owners and attribute names, several where tensors are tied."""
        names = {id(parameter): name for name, parameter in self._tensors.items()}
        places: dict[str, list[tuple[nn.Module, str]]] = {name: [] for name in self._tensors}
        for module in self.modules():
            for leaf, parameter in module._parameters.items():
                if parameter is not None:
                    places[names[id(parameter)]].append((module, leaf))
        return places

    def _put(self, name: str, parameter: nn.Parameter) -> None:
        """Let a parameter stand where the tensor of that name stands."""
        for owner, leaf in self._places[name]:
            owner._parameters[leaf] = parameter
        self._tensors[name] = parameter

    def _place(self, name: str, module: Any) -> None:
        """Let a module stand where the Linear of that name stands."""
        path, _, leaf = name.rpartition(".")
        setattr(self.get_submodule(path), leaf, module)

    def _refuse_unknown(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self._tensors:
                raise UnknownName("tensor of the backbone", name, self._tensors)

    # What a method does to it

    def unfreeze(self, names: Iterable[str]) -> dict[str, nn.Parameter]:
        """Put trainable clones in the place of tensors.

        Args:
            names: of parameters, for example "text.blocks.0.mlp.proj.bias".

        Returns:
            Name to trainable parameter.

        Raises:
            UnknownName: no such tensor.
        """
        names = list(names)
        self._refuse_unknown(names)
        for name in names:
            if name not in self._changed or not self._tensors[name].requires_grad:
                self._put(name, nn.Parameter(self._tensors[name].detach().clone()))
                self._changed.add(name)
        return {name: self._tensors[name] for name in names}

    def replace_linear(self, name: str, factory: Callable[[nn.Linear], nn.Module]) -> nn.Module:
        """Put another module where a Linear is.

        Args:
            name: for example "image.blocks.3.attn.q_proj".
            factory: from the Linear (which may be kept inside) to a module with the same inputs and outputs. If the
                module is random in training, it says so by an attribute `stochastic`, or holds a dropout.

        Returns:
            The new module.

        Raises:
            UnknownName: no such module.
            BackboneError: it is not a Linear, or has been replaced already.
        """
        if name in self.replaced:
            raise BackboneError(f"'{name}' of the backbone has been replaced already")
        modules = dict(self.named_modules())
        if name not in modules:
            linears = [known for known, module in modules.items() if isinstance(module, nn.Linear)]
            raise UnknownName("Linear of the backbone", name, linears)
        linear = modules[name]
        if not isinstance(linear, nn.Linear):
            raise BackboneError(f"'{name}' of the backbone is a {type(linear).__name__}, not a Linear")
        module = factory(linear)
        self.replaced[name] = module
        self._place(name, module)
        return module

    def parametrize(self, name: str, module: nn.Module) -> None:
        """Let a bare tensor, such as a tower's `proj`, be computed by a module: `module(tensor)` stands in its place.

        Args:
            name: for example "image.proj".
            module: from the tensor to one of its shape.

        Raises:
            UnknownName: no such tensor.
            BackboneError: it has been parametrized already, or is tied to another tensor.
        """
        self._refuse_unknown([name])
        if name in self.replaced:
            raise BackboneError(f"'{name}' of the backbone has been parametrized already")
        if len(self._places[name]) > 1:
            raise BackboneError(f"'{name}' of the backbone stands in several places and cannot be parametrized in one")
        ((owner, leaf),) = self._places[name]
        parametrize.register_parametrization(owner, leaf, module, unsafe=True)
        self.replaced[name] = module
        self._places[name] = [(owner.parametrizations[leaf], "original")]  # type: ignore[index, union-attr, list-item]

    def replace_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Put frozen tensors of other values in the place of pretrained ones.

        Args:
            tensors: name to value of the same shape; it is copied.

        Raises:
            UnknownName: no such tensor.
            BackboneError: a value of another shape.
        """
        self._refuse_unknown(tensors)
        for name, value in tensors.items():
            now = self._tensors[name]
            if value.shape != now.shape:
                shapes = f"{tuple(value.shape)} instead of {tuple(now.shape)}"
                raise BackboneError(f"a value for '{name}' of the backbone has shape {shapes}")
            value = value.detach().to(now.device, now.dtype, copy=True)
            self._put(name, nn.Parameter(value, requires_grad=False))
            self._changed.add(name)
        self.clear_cache()

    def pretrained_tensor(self, name: str) -> Tensor:
        """A tensor or buffer as it was loaded, detached, on the device of this view.

        Raises:
            UnknownName: no such tensor.
        """
        known = {**dict(self.pretrained.named_parameters()), **dict(self.pretrained.named_buffers())}
        if name not in known:
            raise UnknownName("tensor of the backbone", name, known)
        return known[name].detach()

    def refuse_shared(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Raise BackboneError where a tensor that is to be trained has the storage of the backbone."""
        shared = {p.untyped_storage().data_ptr() for p in self.pretrained.parameters() if not p.is_meta}
        for name, parameter in parameters.items():
            if not parameter.is_meta and parameter.numel() and parameter.untyped_storage().data_ptr() in shared:
                raise BackboneError(f"'{name}' is to be trained, but it is the backbone's own: unfreeze(['{name}'])")

    # What it has become

    def changed_tensors(self) -> dict[str, Tensor]:
        """The tensors that may differ from the pretrained ones, as they are now, detached.

        Those unfrozen, replaced or parametrized, and the weights of merged Linears that differ; modules that cannot be
        written into the weights (adapters) are left out.
        """
        changed = {name: self._tensors[name].detach() for name in self._tensors if name in self._changed}
        for name, module in self.replaced.items():
            if name in self._tensors:
                with torch.no_grad():
                    changed[name] = module(self._tensors[name].detach())
            elif isinstance(module, Mergeable):
                for leaf, tensor in module.merged().named_parameters():
                    if not torch.equal(tensor, self._tensors[f"{name}.{leaf}"]):
                        changed[f"{name}.{leaf}"] = tensor.detach()
        return changed

    def can_hold(self, parameters: Iterable[nn.Parameter]) -> bool:
        """Whether all of these can be written into the backbone's tensors (a context and adapters cannot)."""
        apart = [module for name, module in self.replaced.items() if not self._is_written(name, module)]
        outside = {id(parameter) for module in apart for parameter in module.parameters()}
        inside = {id(parameter) for parameter in self.parameters()} - outside
        return all(id(parameter) in inside for parameter in parameters)

    def _is_written(self, name: str, module: nn.Module) -> bool:
        return name in self._tensors or isinstance(module, Mergeable)

    @contextmanager
    def merged(self) -> Iterator[None]:
        """Within this context plain Linears stand in for the modules that can be written as one, for inference.

        The Linears are kept for as long as the module's tensors stay the same.
        """
        self._depth += 1
        places = self._mergeable() if self._depth == 1 else []
        try:
            for name, module in places:
                self._place(name, self._merged.of(name, module, self.logit_scale.device))
            yield
        finally:
            self._depth -= 1
            for name, module in places:
                self._place(name, module)

    def _mergeable(self) -> list[tuple[str, Mergeable]]:
        return [(n, m) for n, m in self.replaced.items() if n not in self._tensors and isinstance(m, Mergeable)]

    def clear_cache(self) -> None:
        """Drop the merged Linears; to be called when a module has changed by more than the values of its tensors."""
        self._merged.clear()

    def is_random(self, tower: str) -> bool:
        """Whether a module that stands in a tower now draws noise."""
        return any(
            name.startswith(f"{tower}.")
            and draws_noise(module)
            and not (self._depth and name not in self._tensors and isinstance(module, Mergeable))
            for name, module in self.replaced.items()
        )

    # What torch and Lightning do to it

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Backbone.tokenize`; the tokenizer is shared."""
        ids = self._loaded.tokenize(texts)
        self.text.pad = self._loaded.text.pad
        return ids

    def train(self, mode: bool = True) -> BackboneView:
        """Frozen modules stay in eval mode; what stands in the place of Linears follows `mode`."""
        super().train(False)
        for module in self.replaced.values():
            module.train(mode)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> BackboneView:
        """Convert what is this view's own; shared tensors become those of the backbone's copy, made once."""
        with torch.no_grad():
            probe = fn(torch.empty(0, device=self.logit_scale.device, dtype=self.logit_scale.dtype))
        twin = self._loaded.twin(probe.device, probe.dtype)
        if twin is not self.pretrained:
            object.__setattr__(self, "pretrained", twin)
            shared = dict(twin.named_parameters())
            for name in self._tensors.keys() - self._changed:
                self._put(name, nn.Parameter(shared[name].detach(), requires_grad=False))
            self._merged.clear()
        super()._apply(fn, recurse)
        for name, places in self._places.items():
            owner, leaf = places[0]
            found = owner._parameters[leaf]
            assert found is not None
            self._put(name, found)  # torch unties tied tensors where it cannot move them in place
        return self

    def view(self) -> BackboneView:
        """Refused: a view is taken of the backbone itself, which `pretrained` is."""
        raise BackboneError("a view is taken of the backbone itself, not of another view")

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Every `load_state_dict`, also one of a module around this view, comes here before it comes to the towers."""
        shared = {id(tensor) for name, tensor in self._tensors.items() if name not in self._changed}
        for name, tensor in self.named_parameters(remove_duplicate=False):
            if id(tensor) in shared and prefix + name in state_dict:
                raise BackboneError(
                    f"a state dict for a view holds '{name}', which is the backbone's own: load what is trained alone,"
                    " or put other values there by replace_tensors"
                )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __deepcopy__(self, memo: Any) -> BackboneView:
        raise BackboneError("a view belongs to one method: copy the method, or take another view of the backbone")

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise BackboneError("a view is not pickled by itself: the method that it belongs to is, by what it learned")
