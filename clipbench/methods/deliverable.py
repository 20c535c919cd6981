"""The deliverable: what a method learned and nothing else, safetensors with a header that says what it belongs to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from clipbench.atomic import write_bytes
from clipbench.errors import MethodError
from clipbench.methods import method_class, registered
from clipbench.methods.base import Method
from clipbench.methods.task import Task

FORMAT = 1


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
    )
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in method.built().items()}
    text = json.dumps(header.__dict__, sort_keys=True)
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
    trained = method.built()
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    expected = {name: tuple(tensor.shape) for name, tensor in trained.items()}
    if shapes != expected:
        odd = sorted(set(shapes.items()) ^ set(expected.items()))[:4]
        raise MethodError(f"the tensors of '{path}' do not fit {type(method).__name__}: {odd}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            trained[name].copy_(tensor)


def load_method(path: Path) -> Method:
    """The method of a deliverable, built and loaded, ready for any class names (`class_features`).

    Raises:
        MethodError: its method is not registered (a name in a file is never imported), or it does not fit.
    """
    header = read_header(path)
    if header.method not in registered():
        known = ", ".join(registered())
        raise MethodError(f"'{path}' was learned by '{header.method}', which is not installed here (known: {known})")
    method = method_class(header.method)(**header.init_args)
    method.bind(Task(tuple(header.classnames), ()), header.templates, header.train_seed)
    method.configure_model()
    load_into(method, path)
    return method
