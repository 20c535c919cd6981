"""The deliverable: what a method learned and nothing else, safetensors with a header that says what it belongs to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from clipbench.atomic import write_bytes
from clipbench.data.task import Task
from clipbench.errors import MethodError
from clipbench.methods import method_class, registered
from clipbench.methods.base import Method

FORMAT = 1
OF_START = "start/"  # prefix of the weights that a method with `start` began from


@dataclass(frozen=True)
class Header:
    """What a deliverable belongs to.

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

    def as_dict(self) -> dict[str, Any]:
        """As it is stored."""
        return {name: value for name, value in self.__dict__.items() if name != "active_entries" or value is not None}


def save_deliverable(path: Path, method: Method, dataset: str, recipe: str | None = None) -> int:
    """Write what the method learned; returns the size of the file in bytes.

    Raises:
        RecordError: the folder is read-only or full.
    """
    header = Header(
        method=type(method).__name__,
        init_args={k: v for k, v in dict(method.hparams).items() if not k.startswith("_")},
        recipe=recipe,
        backbone=method.backbone_name,
        backbone_hash=method.backbone.hash,
        template_set=method.template_set,
        templates=list(method.templates),
        dataset=dataset,
        classnames=list(method.task.train),
        train_seed=method.train_seed,
        active_entries=method.active_entries,
    )
    stored = method.learned() | {f"{OF_START}{name}": tensor for name, tensor in method.start_tensors.items()}
    tensors = {name: tensor.cpu().contiguous() for name, tensor in stored.items()}
    text = json.dumps(header.as_dict(), sort_keys=True)
    content = save(tensors, metadata={"clipbench": str(FORMAT), "header": text})
    write_bytes(path, content)
    return len(content)


def read_header(path: Path) -> Header:
    """What a deliverable belongs to.

    Raises:
        MethodError: no such file, not a deliverable, or one of a newer format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise MethodError(f"'{path}' cannot be read as a deliverable: {error}") from error
    if "clipbench" not in metadata:
        raise MethodError(f"'{path}' is a safetensors file but not a deliverable of clipbench")
    if int(metadata["clipbench"]) > FORMAT:
        raise MethodError(
            f"'{path}' has deliverable format {metadata['clipbench']}, this clipbench reads up to {FORMAT}"
        )
    try:
        return Header(**json.loads(metadata["header"]))
    except (KeyError, TypeError, ValueError) as error:
        raise MethodError(f"the header of deliverable '{path}' is damaged ({error})") from error


def load_into(method: Method, path: Path) -> None:
    """Put a deliverable's tensors into a built method.

    Raises:
        MethodError: it belongs to another backbone or method, or its tensors do not fit.
    """
    header = read_header(path)
    if header.backbone_hash != method.backbone.hash:
        raise MethodError(
            f"'{path}' was learned on backbone '{header.backbone}' ({header.backbone_hash[:12]}), "
            f"not on '{method.backbone_name}' ({method.backbone.hash[:12]})"
        )
    if header.method != type(method).__name__:
        raise MethodError(f"'{path}' was learned by {header.method}, not by {type(method).__name__}")
    tensors = read_tensors(path)
    start = {name: tensors.pop(name) for name in list(tensors) if name.startswith(OF_START)}
    try:
        if start:
            method.begin_from({name.removeprefix(OF_START): tensor for name, tensor in start.items()})
        method.take(tensors)
    except MethodError as error:
        raise MethodError(f"'{path}': {error}") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a deliverable."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)


def method_of(header: Header, path: Path, backbone: str | None = None) -> Method:
    """The method of a deliverable, bound to what it was trained on, not yet built.

    Args:
        header: of the deliverable.
        path: where it lies, for messages.
        backbone: under which name its backbone is at hand, if another.

    Raises:
        MethodError: it is not registered; a name in a file is never imported.
    """
    if header.method not in registered():
        known = ", ".join(registered())
        raise MethodError(f"'{path}' was learned by '{header.method}', which is not installed here (known: {known})")
    kind = method_class(header.method)
    arguments = kind.loading_arguments(header.init_args)
    method = kind(**(arguments | {"backbone": backbone} if backbone else arguments))
    task = Task(header.dataset, None, tuple(header.classnames), ())
    method.bind(task, header.templates, header.train_seed)
    method.active_entries = header.active_entries
    return method


def load_method(path: Path) -> Method:
    """The method of a deliverable, built and loaded, in eval mode, ready for any class names (`class_features`).

    Raises:
        MethodError: its method is not registered, or it does not fit.
    """
    method = method_of(read_header(path), path)
    method.configure_model()
    load_into(method, path)
    return method.eval()
