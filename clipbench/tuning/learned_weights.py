"""What a method learned, as named tensors: read, put back, and weakened towards where it began."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from clipbench.backbone.stand_ins import Interpolable
from clipbench.backbone.view import BackboneView
from clipbench.errors import MethodError


class LearnedWeights:
    """The trained tensors of a method and the weights that it started from.

    Args:
        start: tensors of the backbone that other weights stand in for, by name.
        backbone: the method's view, with everything in place; None: nothing has been built yet.
        trainable: name to trained parameter.
        interpolates: whether there is a way back from what was learned to the pretrained model.
    """

    def __init__(
        self,
        start: Mapping[str, Tensor] | None = None,
        backbone: BackboneView | None = None,
        trainable: Mapping[str, nn.Parameter] | None = None,
        interpolates: bool = True,
    ) -> None:
        self.interpolates = interpolates
        self.trainable, self.start = dict(trainable or {}), dict(start or {})
        self.active_entries: int | None = None
        """Numbers still trained at the end, where some were frozen on the way."""
        self.seen: frozenset[str] = frozenset()
        """The classes that were trained on, also in what this began from."""
        self.fits = 0
        """How many fits in a row made it."""
        self.began: dict[str, Tensor] = {}
        """Trained tensors that have no pretrained value, as they began."""
        if backbone is None:
            return  # nothing has been built yet
        backbone.refuse_shared(self.trainable)
        self.backbone = backbone
        known = dict(backbone.pretrained.named_parameters())
        inside = self._knowing_the_way()
        self.began = {
            name: parameter.detach().clone()
            for name, parameter in self.trainable.items()
            if name not in known and id(parameter) not in inside
        }

    def begin_fit(self, classnames: Iterable[str]) -> None:
        """Take note of a fit on some classes."""
        self.seen |= frozenset(classnames)
        self.fits += 1

    def _knowing_the_way(self) -> set[int]:
        """Ids of the parameters of modules that interpolate themselves."""
        modules = [module for module in self.backbone.replaced.values() if isinstance(module, Interpolable)]
        return {id(parameter) for module in modules for parameter in module.parameters()}

    def num_active(self) -> int:
        """How many numbers are still trained; fewer than at the start where some were frozen on the way."""
        if self.active_entries is not None:
            return self.active_entries
        return sum(parameter.numel() for parameter in self.trainable.values() if parameter.requires_grad)

    def state(self) -> dict[str, Tensor]:
        """The trained tensors, detached."""
        return {name: tensor.detach() for name, tensor in self.trainable.items()}

    def load(self, tensors: Mapping[str, Tensor], partial: bool = False) -> None:
        """Put values into the trained tensors.

        Args:
            tensors: name to value.
            partial: whether some may be missing; these stay as they are.

        Raises:
            MethodError: names or shapes do not fit.
        """
        wanted = {name: p for name, p in self.trainable.items() if not partial or name in tensors}
        refuse_other_shapes(tensors, wanted)
        with torch.no_grad():
            for name, tensor in tensors.items():
                wanted[name].copy_(tensor)

    def beginning(self, name: str) -> Tensor:
        """The value that a trained tensor of the backbone began with: that of the start, else the pretrained one."""
        return self.start[name] if name in self.start else self.backbone.pretrained_tensor(name)

    @torch.no_grad()
    def interpolate(self, alpha: float) -> None:
        """Go back from what was learned towards where it began: (1 - alpha) start + alpha now.

        Tensors of the backbone go back to their pretrained values, those of the start too; modules in the place of
        Linears know the way themselves; other tensors go back to how they began.

        Raises:
            MethodError: a tensor of the start lies inside a module that holds a copy of it (peft's layers).

        Source: Wortsman et al., CVPR 2022 (arXiv 2109.01903), weight interpolation.
        """
        if not self.interpolates:
            raise MethodError("what was learned is not made from the pretrained model: there is no way back")
        for name in self.start:
            module = self.backbone.replaced.get(name.rpartition(".")[0])
            if module is not None and not isinstance(module, Interpolable):
                raise MethodError(f"'{name}' of the start lies inside a {type(module).__name__}: there is no way back")
        inside = self._knowing_the_way()
        for module in self.backbone.replaced.values():
            if isinstance(module, Interpolable):
                module.interpolate(alpha)
        for name, parameter in self.trainable.items():
            if id(parameter) not in inside:
                origin = self.began[name] if name in self.began else self.backbone.pretrained_tensor(name)
                parameter.lerp_(origin.to(parameter), 1 - alpha)
        back = {
            name: torch.lerp(self.backbone.pretrained_tensor(name), value.to(self.backbone.logit_scale.device), alpha)
            for name, value in self.start.items()
            if name not in self.trainable
        }
        self.backbone.replace_tensors(back)
        self.backbone.clear_cache()

    def in_the_backbone(self) -> dict[str, Tensor]:
        """The tensors of the backbone as what was learned leaves them, where it changes them, by name.

        Raises:
            MethodError: part of what was learned (a context, adapters) cannot be written into the backbone's tensors.
        """
        if not self.backbone.can_hold(self.trainable.values()):
            raise MethodError("start: what was learned there is not in the backbone's weights alone")
        return {name: tensor.clone() for name, tensor in self.backbone.changed_tensors().items()}


def check_declared(module: nn.Module, built: Any, count: int | None) -> dict[str, nn.Parameter]:
    """What a method says that it trains, by name.

    Args:
        module: the method.
        built: what its `build` returned.
        count: what its formula says; None: it trains nothing itself.

    Raises:
        MethodError: something else than parameters; a parameter that could be trained and is not named; another count.
    """
    name = type(module).__name__
    if not isinstance(built, Mapping):
        raise MethodError(f"{name}.build() returns {type(built).__name__}: it has to return parameters by name, a dict")
    parameters = {key: tensor for key, tensor in built.items() if isinstance(tensor, nn.Parameter)}
    if others := [key for key in built if key not in parameters]:
        raise MethodError(f"'{others[0]}' is to be trained by {name}, but it is not a torch.nn.Parameter")
    if count is None:
        return parameters
    known = {id(parameter) for parameter in parameters.values()}
    if left := [key for key, p in module.named_parameters() if p.requires_grad and id(p) not in known]:
        raise MethodError(
            f"'{left[0]}' of {name} is a parameter that build() does not return: "
            "return it, or call requires_grad_(False) on it if it is frozen"
        )
    made = sum(parameter.numel() for parameter in parameters.values())
    if made != count:
        raise MethodError(f"{name}.num_trainable() says {count:,}, but what build() returns are {made:,} numbers")
    return parameters


def refuse_other_shapes(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise MethodError where stored tensors are not of the expected names, shapes and types."""
    found, wanted = (
        {(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")) for name, tensor in given.items()}
        for given in (tensors, expected)
    )
    if found != wanted:
        missing, extra = sorted(wanted - found)[:3], sorted(found - wanted)[:3]
        raise MethodError(f"the stored tensors do not fit: missing {missing}, not expected {extra}")


def restrict_state_dict(module: nn.Module, trained: Callable[[], Iterable[nn.Parameter]]) -> None:
    """Let the state dict of a module hold what is trained and nothing else, in and out.

    Args:
        module: its `state_dict` then leaves out all others, and its `load_state_dict` does not miss them; there, other
            names or shapes than those of the trained tensors are a MethodError, and so is `assign=True`.
        trained: gives the trained parameters there are at that time.
    """
    loaded: list[str] = []  # prefix of the module in what is being loaded

    def names(owner: nn.Module) -> dict[str, Tensor]:
        ids = {id(parameter) for parameter in trained()}
        return {name: p for name, p in owner.named_parameters(remove_duplicate=False) if id(p) in ids}

    def leave_out(owner: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        own = {prefix + name for name in names(owner)}
        for name in [name for name in state if name.startswith(prefix) and name not in own]:
            del state[name]

    def refuse(owner: nn.Module, state: Mapping[str, Any], prefix: str, metadata: Mapping[str, Any], *_: Any) -> None:
        if prefix and not state:
            return  # a state dict of other parts of a larger module: torch says what is missing
        if metadata.get("assign_to_params_buffers"):
            raise MethodError(
                "assign=True would put other tensors in the place of those that are trained: leave it out"
            )
        refuse_other_shapes(state, {prefix + name: tensor for name, tensor in names(owner).items()})
        loaded.append(prefix)

    def miss_nothing(owner: nn.Module, keys: Any) -> None:
        if loaded:
            prefix = loaded.pop()
            keys.missing_keys[:] = [name for name in keys.missing_keys if not name.startswith(prefix)]

    module.register_state_dict_post_hook(leave_out)
    module.register_load_state_dict_pre_hook(refuse)
    module.register_load_state_dict_post_hook(miss_nothing)
