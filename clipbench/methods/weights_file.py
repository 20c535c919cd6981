"""Files of learned weights: what a method learned and nothing else, safetensors with a header that says whose it is."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from clipbench.atomic import write_bytes
from clipbench.backbone.spec import resolve_spec
from clipbench.errors import BackboneError, ConfigError, MethodError
from clipbench.methods import METHODS, method_class, registered
from clipbench.methods.arguments import FORMER, from_stored, refuse_unknown, settings_of
from clipbench.methods.header import Header, path_of, read_header, read_stated, stated
from clipbench.tuning.learned_weights import LearnedWeights

if TYPE_CHECKING:
    from clipbench.methods.base import Method

__all__ = ["Header", "Learned", "class_of", "finished", "read_header", "read_learned", "restored"]

OF_START = "start/"  # prefix of the weights that a method with `start` began from
WHERE = " (learned on backbone '{name}'; where it lies elsewhere, name that place with --backbone)"


def finished(header: Header | None, weights: LearnedWeights | None = None, recipe: str | None = None) -> Header:
    """A header as a fit leaves it.

    Args:
        header: what was learned belongs to this.
        weights: how many numbers were still trained, and what the fit went on from.
        recipe: by which recipe it was learned, where that is known.

    Raises:
        MethodError: there is none yet.
    """
    if header is None:
        raise MethodError("the method has not been set up: fit or load it first, or name the classes")
    if weights is None:
        return header
    return dataclasses.replace(
        header, recipe=recipe or header.recipe, active_entries=weights.active_entries,
        also_trained=sorted(weights.seen - set(header.classnames)) or None,
        fits=weights.fits if weights.fits > 1 else None,
    )  # fmt: skip


@dataclass(frozen=True)
class Learned:
    """What a method learned, and all that is needed to make that method again.

    Attributes:
        header: whose it is.
        tensors: what was learned, by name (`Method.adapter_state_dict`); None: it comes later, from a checkpoint.
        start: tensors of the backbone that it started from, by name.
    """

    header: Header
    tensors: Mapping[str, Tensor] | None
    start: Mapping[str, Tensor]

    @classmethod
    def of(
        cls, header: Header | None, tensors: Mapping[str, Tensor], weights: LearnedWeights, recipe: str | None = None
    ) -> Learned:
        """What a method has learned by now, and perhaps by which recipe; MethodError where nothing has been set up."""
        return cls(finished(header, weights, recipe), tensors, weights.start)

    def method(self, kind: type[Method] | None = None, backbone: str | None = None, where: str = "") -> Method:
        """The method that learned this, with it in place.

        Args:
            kind: its class; None: the one at its path among the installed and the imported ones (`class_of`).
            backbone: under which name its backbone is at hand, if another.
            where: what messages begin with.

        Raises:
            MethodError: the method is another one, or not installed; the backbone is another; tensors do not fit.
        """
        name = backbone or self.header.backbone
        try:
            kind = kind or class_of(self.header)
            if self.header.class_path is not None and self.header.is_of(kind):  # older files state what nothing read
                known = {*settings_of(kind), *FORMER.get(kind.__name__, ())}
                refuse_unknown(kind, [key for key in self.header.init_args if key not in known])
            start = {} if kind.derived else {"start": None}  # what it started from is here
            method: Method = from_stored(kind, self.header.init_args, **start, backbone=name)
            method.setup(learned=self)
        except (BackboneError, ConfigError, MethodError) as error:
            hint = (
                ""
                if not isinstance(error, BackboneError) and resolves(name)
                else WHERE.format(name=self.header.backbone)
            )
            raise MethodError(f"{where}{error}{hint}") from error
        return method

    def cloned(self) -> Learned:
        """The same with tensors of its own."""
        tensors = {name: tensor.clone() for name, tensor in (self.tensors or {}).items()}
        return Learned(self.header, tensors, dict(self.start))

    def write(self, path: Path) -> int:
        """Write a file, whole or not at all; returns its size in bytes.

        Raises:
            RecordError: the folder is read-only or full.
        """
        stored = dict(self.tensors or {}) | {f"{OF_START}{name}": tensor for name, tensor in self.start.items()}
        plain = {name: tensor.cpu().contiguous() for name, tensor in stored.items()}
        content = save(plain, metadata={"clipbench": stated(self.header, digest_of(plain))})  # one key: equal bytes
        write_bytes(path, content)
        return len(content)


def read_learned(path: Path) -> Learned:
    """What a file of learned weights holds.

    Raises:
        MethodError: no such file, not learned weights, damaged, or of a newer format.
    """
    header, digest = read_stated(path)
    refuse_larger_than_memory(path)
    try:
        with safe_open(path, framework="pt") as file:
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise MethodError(f"'{path}' cannot be read as learned weights: {error}") from error
    if digest is not None and digest_of(stored) != digest:
        raise MethodError(f"the tensors of '{path}' are not those that were saved: the file is damaged")
    if spoilt := [name for name, tensor in stored.items() if not torch.isfinite(tensor).all()]:
        raise MethodError(f"the tensor '{spoilt[0]}' of '{path}' holds numbers that are not finite")
    start = {name.removeprefix(OF_START): stored.pop(name) for name in list(stored) if name.startswith(OF_START)}
    return Learned(header, stored, start)


def refuse_larger_than_memory(path: Path) -> None:
    """Raise MethodError for a file that this machine could never hold."""
    size, memory = path.stat().st_size, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > memory:
        raise MethodError(f"'{path}' holds {size / 1e9:.0f} GB, this machine has {memory / 1e9:.0f} GB of memory")


def resolves(backbone: str) -> bool:
    """Whether a name is that of a backbone, whose weights may be elsewhere."""
    try:
        resolve_spec(backbone)
    except (BackboneError, ConfigError):
        return False
    return True


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes of tensors, hexadecimal."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def class_of(header: Header) -> type[Method]:
    """The class of the method that learned something: an installed one, or one that is imported already.

    A name in a file is never imported. A class that is not found at its path may have moved inside its package, or from
    a script or notebook into a file.

    Raises:
        MethodError: it is neither, or several have its name.
    """
    from clipbench.methods.base import Method

    if header.is_ours and header.method in METHODS:
        return method_class(header.method)
    learner = header.class_path or header.method
    top = learner.partition(".")[0]
    for name, value in registered().items():
        if name not in METHODS and value.partition(":")[0].partition(".")[0] == top:
            method_class(name)  # imported, so that it is among the subclasses
    named = [kind for kind in _subclasses(Method) if header.is_of(kind)]
    exact = [kind for kind in named if path_of(kind) == learner]
    moved = named if top in ("__main__", "__mp_main__") else [k for k in named if k.__module__.partition(".")[0] == top]
    found = exact[-1:] or moved  # of several imports of one file the last one
    if len(found) > 1:
        raise MethodError(f"learned by '{learner}', but there are {', '.join(sorted(map(path_of, found)))}")
    if found:
        return found[0]
    raise MethodError(
        f"learned by '{learner}', which is not installed here; a class of one's own loads it by {header.method}"
        f".load(path), a command finds it with its recipe as --config (installed: {', '.join(registered())})"
    )


def _subclasses(kind: type) -> list[type[Any]]:
    children: list[type[Any]] = kind.__subclasses__()
    return [one for child in children for one in (child, *_subclasses(child))]


def restored(
    kind: type[Method], arguments: Mapping[str, Any], learned: Learned | None, has_learned: bool, training: bool,
    device: torch.device,
) -> Method:  # fmt: skip
    """The method that `Method.__reduce_ex__` took apart."""
    if learned is None:
        return kind(**arguments)
    method: Method = from_stored(kind, arguments, **({} if kind.derived else {"start": None}))
    method.setup(learned=learned)
    method.has_learned = has_learned
    return method.train(training).to(device)
