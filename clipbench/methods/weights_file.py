"""Files of learned weights: what a method learned and nothing else, safetensors with a header that says whose it is."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from clipbench.atomic import write_bytes
from clipbench.backbone.clip import load_backbone
from clipbench.data.task import Task
from clipbench.errors import MethodError
from clipbench.methods import METHODS, method_class, registered
from clipbench.methods.arguments import from_stored
from clipbench.tuning.learned_weights import LearnedWeights

if TYPE_CHECKING:
    from clipbench.methods.base import Method

FORMAT = 2  # 1 had two keys of metadata, in any order, and no digest
OF_START = "start/"  # prefix of the weights that a method with `start` began from


@dataclass(frozen=True)
class Header:
    """What learned weights belong to.

    Attributes:
        method: class of the method.
        init_args: its arguments.
        recipe: name of the recipe, where there was one.
        backbone: name of the backbone.
        backbone_hash: hash of its loaded tensors.
        template_set: named set of the prompts.
        templates: the templates themselves.
        dataset: key of the dataset.
        classnames: the classes that were trained on.
        train_seed: the seed of initialisation and order.
        active_entries: numbers still trained at the end, where some were frozen on the way; else None.
        class_path: import path of the class, to find it among those that are there; it is never imported by this name.
    """

    method: str
    init_args: dict[str, Any]
    recipe: str | None
    backbone: str
    backbone_hash: str
    template_set: str
    templates: list[str]
    dataset: str
    classnames: list[str]
    train_seed: int
    active_entries: int | None = None
    class_path: str | None = None

    @classmethod
    def of(cls, method: Method, task: Task) -> Header:
        """The header of what a method learns on a task."""
        kind = type(method)
        return cls(
            kind.__name__, dict(method.hparams), None, method.backbone_name, method.backbone.hash, method.template_set,
            list(method.templates), task.dataset, list(task.train), method.train_seed,
            class_path=path_of(kind),
        )  # fmt: skip

    @classmethod
    def of_checkpoint(
        cls, checkpoint: Mapping[str, Any], kind: type[Method], backbone: str
    ) -> tuple[Header, dict[str, Any]]:
        """The header in what a method has written into a Lightning checkpoint, and what its schedule spans.

        Raises:
            MethodError: there is none, or it is of another method or backbone.
        """
        stored = checkpoint.get("clipbench") or {}
        if "header" not in stored:
            raise MethodError("the checkpoint says not whose it is: it was not written by this version of clipbench")
        header = cls(**stored["header"])
        header.refuse_other(kind, backbone)
        return header, stored["span"]

    @property
    def task(self) -> Task:
        """The classes that were trained on, as a task without tests."""
        return Task(self.dataset, None, tuple(self.classnames), ())

    def as_dict(self) -> dict[str, Any]:
        """As it is stored: without what is None by default."""
        optional = {field.name for field in fields(self) if field.default is None}
        return {name: value for name, value in self.__dict__.items() if name not in optional or value is not None}

    @property
    def is_ours(self) -> bool:
        """Whether one of the methods of this package learned this."""
        if self.class_path is None:
            return self.method in METHODS
        return self.class_path.partition(".")[0] == "clipbench"

    def is_of(self, kind: type[Method]) -> bool:
        """Whether a class has the name of the method that learned this, and is ours if that was; it may have moved."""
        return kind.__name__ == self.method and kind.__module__.startswith("clipbench.") == self.is_ours

    def refuse_other(self, kind: type[Method], backbone: str) -> None:
        """Raise MethodError unless this is what a method of that class learned on that backbone."""
        backbone_hash = load_backbone(backbone).hash
        if not self.is_of(kind):
            same = kind.__name__ == self.method
            learner, other = (self.class_path, path_of(kind)) if same else (self.method, kind.__name__)
            raise MethodError(f"learned by {learner}, not by {other}")
        if self.backbone_hash != backbone_hash:
            raise MethodError(
                f"learned on backbone '{self.backbone}' ({self.backbone_hash[:12]}), "
                f"not on '{backbone}' ({backbone_hash[:12]})"
            )


def finished(header: Header | None, recipe: str | None = None, active_entries: int | None = None) -> Header:
    """A header as a fit leaves it: by which recipe, where that is known, and how many numbers were still trained.

    Raises:
        MethodError: there is none yet.
    """
    if header is None:
        raise MethodError("the method has not been set up: fit or load it first, or name the classes")
    return dataclasses.replace(header, recipe=recipe or header.recipe, active_entries=active_entries)


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
        return cls(finished(header, recipe, weights.active_entries), tensors, weights.start)

    def method(self, kind: type[Method] | None = None, backbone: str | None = None, where: str = "") -> Method:
        """The method that learned this, with it in place.

        Args:
            kind: its class; None: the one at its path among the installed and the imported ones (`class_of`).
            backbone: under which name its backbone is at hand, if another.
            where: what messages begin with.

        Raises:
            MethodError: the method is another one, or not installed; the backbone is another; tensors do not fit.
        """
        try:
            kind = kind or class_of(self.header)
            start = {} if kind.derived else {"start": None}  # what it started from is here
            arguments = {**start, "backbone": backbone or self.header.backbone}
            method: Method = from_stored(kind, self.header.init_args, **arguments)
            method.setup(learned=self)
        except MethodError as error:
            raise MethodError(f"{where}{error}") from error
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
        stated = {"format": FORMAT, "header": self.header.as_dict(), "tensors": digest_of(plain)}
        content = save(plain, metadata={"clipbench": json.dumps(stated, sort_keys=True)})  # one key: equal bytes
        write_bytes(path, content)
        return len(content)


def read_learned(path: Path) -> Learned:
    """What a file of learned weights holds.

    Raises:
        MethodError: no such file, not learned weights, or of a newer format.
    """
    header, digest = _read_stated(path)
    with safe_open(path, framework="pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    if digest is not None and digest_of(stored) != digest:
        raise MethodError(f"the tensors of '{path}' are not those that were saved: the file is damaged")
    start = {name.removeprefix(OF_START): stored.pop(name) for name in list(stored) if name.startswith(OF_START)}
    return Learned(header, stored, start)


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes of tensors, hexadecimal."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_header(path: Path) -> Header:
    """What learned weights belong to.

    Raises:
        MethodError: no such file, not learned weights, or of a newer format.
    """
    return _read_stated(path)[0]


def _read_stated(path: Path) -> tuple[Header, str | None]:
    """The header, and the digest of the tensors, which files of format 1 do not have."""
    if not path.is_file():
        raise MethodError(f"there is no file of learned weights '{path}' (a recipe's name is for `clipbench bench`)")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise MethodError(f"'{path}' cannot be read as learned weights: {error}") from error
    if "clipbench" not in metadata:
        raise MethodError(f"'{path}' is a safetensors file but no learned weights of clipbench")
    try:
        stated = json.loads(metadata["clipbench"])
        stated = stated if isinstance(stated, dict) else {"format": stated, "header": json.loads(metadata["header"])}
        if stated["format"] > FORMAT:
            raise MethodError(f"'{path}' has format {stated['format']}, this clipbench reads up to {FORMAT}")
        header = Header(**stated["header"])
        if not (isinstance(header.method, str) and isinstance(header.class_path, (str, type(None)))):
            raise TypeError("method and class_path are text")
        return header, stated.get("tensors")
    except (KeyError, TypeError, ValueError) as error:
        raise MethodError(f"the header of the weights '{path}' is damaged ({error})") from error


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
        f".load(path), test and predict with its recipe as --config (installed: {', '.join(registered())})"
    )


def _subclasses(kind: type) -> list[type[Any]]:
    children: list[type[Any]] = kind.__subclasses__()
    return [one for child in children for one in (child, *_subclasses(child))]


def path_of(kind: type) -> str:
    """The import path of a class, as a file names it."""
    return f"{kind.__module__}.{kind.__qualname__}"


def restored(
    kind: type[Method], arguments: Mapping[str, Any], learned: Learned | None, has_learned: bool, training: bool,
    device: torch.device,
) -> Method:  # fmt: skip
    """The method that `Method.__reduce_ex__` took apart."""
    if learned is None:
        return kind(**arguments)
    method = learned.method(kind)
    method.has_learned = has_learned
    return method.train(training).to(device)
