"""The header of learned weights: whose they are and what they were learned on; read without torch or a tensor."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipbench.data.task import Task
from clipbench.data.templates import check_template
from clipbench.errors import ConfigError, MethodError
from clipbench.methods import METHODS
from clipbench.schemas import misfits

if TYPE_CHECKING:
    from clipbench.methods.base import Method

# 1: two keys of metadata in any order, no digest; 2: nothing of data and trainer, no digest of the header
FORMAT = 3
LARGEST = 10_000_000  # bytes of what stands before the tensors: names of all tensors and classes
SCHEMA_FILE = Path(__file__).with_name("header.schema.json")
# what of a trainer moves a number, beside how long it runs
OF_TRAINER = (
    "precision", "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm", "limit_train_batches",
    "overfit_batches",
)  # fmt: skip


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
        data: class and settings of the data module, where it was one of ours, without what moves no number.
        trainer: those settings of the trainer that move a number; None where there was no trainer.
        also_trained: classes that were trained on before, in the weights that this began from.
        fits: how many fits in a row made it; None: one.
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
    data: dict[str, Any] | None = None
    trainer: dict[str, Any] | None = None
    also_trained: list[str] | None = None
    fits: int | None = None

    @classmethod
    def of(cls, method: Method, task: Task) -> Header:
        """The header of what a method learns on a task, in its trainer where it has one."""
        kind, trainer, settings = type(method), method._trainer, dict(method.hparams)
        if isinstance(settings.get("start"), str):  # by its content: its place is nobody's business
            start = Path(settings["start"])
            settings["start"] = f"{start.name} {content_digest(start)[:12]}" if start.is_file() else start.name
        return cls(
            kind.__name__, settings, None, method.backbone_name, method.backbone.hash, method.template_set,
            list(method.templates), task.dataset, list(task.train), method.train_seed,
            class_path=path_of(kind), data=getattr(getattr(trainer, "datamodule", None), "section", None),
            trainer=None if trainer is None else settings_of_trainer(trainer),
        )  # fmt: skip

    @classmethod
    def from_dict(cls, stored: Any) -> Header:
        """The header that `as_dict` gave; MethodError where it is none."""
        return _checked({"format": 1, "header": stored}, "the header inside the weights")

    @property
    def task(self) -> Task:
        """The classes that were trained on, as a task without tests."""
        return Task(self.dataset, None, tuple(self.classnames), ())

    @property
    def seen(self) -> frozenset[str]:
        """All classes that were trained on, also in what this began from."""
        return frozenset(self.classnames) | frozenset(self.also_trained or ())

    def as_dict(self) -> dict[str, Any]:
        """As it is stored: without what is None by default."""
        optional = {field.name for field in fields(self) if field.default is None}
        return {name: value for name, value in self.__dict__.items() if name not in optional or value is not None}

    def on(self, backbone: str) -> Header:
        """The same with the backbone under another name."""
        return dataclasses.replace(self, backbone=backbone, init_args=self.init_args | {"backbone": backbone})

    def content(self) -> dict[str, Any]:
        """What determines numbers: all but the names of places and of the recipe."""
        found = {name: value for name, value in self.as_dict().items() if name not in ("backbone", "recipe")}
        found["init_args"] = {name: value for name, value in self.init_args.items() if name != "backbone"}
        if isinstance(self.init_args.get("start"), dict):
            found["init_args"]["start"] = Header.from_dict(self.init_args["start"]).content()
        if self.data is not None:
            places = {"root": None, "path": None}
            found["data"] = self.data | {"init_args": self.data["init_args"] | places}
        return found

    @property
    def is_ours(self) -> bool:
        """Whether one of the methods of this package learned this."""
        if self.class_path is None:
            return self.method in METHODS
        return self.class_path.partition(".")[0] == "clipbench"

    def is_of(self, kind: type[Method]) -> bool:
        """Whether a class has the name of the method that learned this, and is ours if that was; it may have moved."""
        return kind.__name__ == self.method and kind.__module__.startswith("clipbench.") == self.is_ours

    def refuse_other(self, kind: type[Method], backbone: str, backbone_hash: str) -> None:
        """Raise MethodError unless this is what a method of that class learned on that backbone."""
        if not self.is_of(kind):
            same = kind.__name__ == self.method
            learner, other = (self.class_path, path_of(kind)) if same else (self.method, kind.__name__)
            raise MethodError(f"learned by {learner}, not by {other}")
        if self.backbone_hash != backbone_hash:
            raise MethodError(
                f"learned on backbone '{self.backbone}' ({self.backbone_hash[:12]}), "
                f"not on '{backbone}' ({backbone_hash[:12]})"
            )


def settings_of_trainer(trainer: Any) -> dict[str, Any]:
    """Those settings of a trainer that move a number, as plain data."""
    values = {name: getattr(trainer, name) for name in (*OF_TRAINER, "max_epochs", "max_steps")}
    return {name: getattr(value, "value", value) for name, value in values.items()}  # the clipping is an enum


def path_of(kind: type) -> str:
    """The import path of a class, as a file names it."""
    return f"{kind.__module__}.{kind.__qualname__}"


def stated(header: Header, tensors: str) -> str:
    """The text that stands in the metadata of a file of learned weights.

    Args:
        header: what the tensors belong to.
        tensors: their digest.
    """
    plain = header.as_dict()
    content = {"format": FORMAT, "header": plain, "tensors": tensors, "digest": _digest(plain, tensors)}
    return json.dumps(content, sort_keys=True)


def read_header(path: Path) -> Header:
    """What learned weights belong to.

    Raises:
        MethodError: no such file, not learned weights, damaged, or of a newer format.
    """
    return read_stated(path)[0]


def content_digest(path: Path) -> str:
    """SHA-256 of what a file of learned weights means, wherever it, its backbone and its data lie.

    Raises:
        MethodError: as `read_header`.
    """
    header, tensors = read_stated(path)
    return _digest(header.content(), tensors or hashlib.sha256(path.read_bytes()).hexdigest())


def read_stated(path: Path) -> tuple[Header, str | None]:
    """The header, and the digest of the tensors, which files of format 1 do not have.

    Raises:
        MethodError: as `read_header`.
    """
    metadata, where = _metadata(path), f"the header of the weights '{path}'"
    if "clipbench" not in metadata:
        raise MethodError(f"'{path}' is a safetensors file but no learned weights of clipbench")
    found = _json(metadata["clipbench"], where)
    if not isinstance(found, dict):
        found = {"format": found, "header": _json(metadata.get("header", "null"), where)}
    form = found.get("format")
    if isinstance(form, int) and form > FORMAT:
        raise MethodError(f"'{path}' has format {form}, this clipbench reads up to {FORMAT}")
    header, tensors = _checked(found, where), found.get("tensors")
    if "digest" in found and found["digest"] != _digest(found["header"], tensors):
        raise MethodError(f"{where} is damaged: it is not the one that was saved")
    return header, tensors


def _metadata(path: Path) -> dict[str, Any]:
    """The metadata of a safetensors file; reads no tensor, and waits for nothing."""

    def refused(why: str) -> MethodError:
        return MethodError(f"'{path}' cannot be read as learned weights: {why}")

    try:
        mode = path.stat()
    except FileNotFoundError as error:
        hint = "(a recipe's name is for `clipbench bench`)"
        raise MethodError(f"there is no file of learned weights '{path}' {hint}") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in its name
        raise refused(str(getattr(error, "strerror", None) or error)) from error
    if stat.S_ISDIR(mode.st_mode):
        inside = path / "weights.safetensors"
        raise refused("it is a folder" + (f"; do you mean '{inside}'?" if inside.is_file() else ""))
    if not stat.S_ISREG(mode.st_mode):
        raise refused("it is a pipe or device, not a plain file")
    try:
        with path.open("rb") as file:
            first = file.read(8)
            length = int.from_bytes(first, "little")
            if first.startswith(b"PK"):
                raise refused("it looks like a checkpoint of Lightning, which --ckpt_path takes")
            if len(first) < 8 or not 2 <= length <= mode.st_size - 8:
                raise refused("it is empty" if not first else "it is cut off, or no safetensors file")
            if length > LARGEST:
                raise refused(f"{length / 1e6:.0f} MB stand before its tensors, of {LARGEST / 1e6:.0f} at most")
            text = file.read(length)
    except OSError as error:
        raise refused(str(error.strerror)) from error
    try:
        content = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise refused(f"it is no safetensors file ({type(error).__name__})") from error
    metadata = content.get("__metadata__", {}) if isinstance(content, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise refused("it is no safetensors file")
    return metadata


def _json(text: str, where: str) -> Any:
    """Strict JSON: no NaN, no half of a character, no nesting without end."""

    def refuse(word: str) -> None:
        raise ValueError(f"it holds {word}")

    try:
        content = json.loads(text, parse_constant=refuse)
        json.dumps(content, ensure_ascii=False).encode()
        return content
    except (ValueError, RecursionError) as error:
        raise MethodError(f"{where} is damaged ({error})") from error


def _checked(found: dict[str, Any], where: str) -> Header:
    for one in misfits(found, SCHEMA_FILE):
        near = difflib.get_close_matches(one.key, one.known, n=1, cutoff=0.5)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise MethodError(f"{where} is damaged (at {one.place}: {one.message}{hint})")
    try:
        for template in found["header"]["templates"]:
            check_template(template, "templates")
    except ConfigError as error:
        raise MethodError(f"{where} is damaged ({error})") from error
    return Header(**found["header"])


def _digest(header: Mapping[str, Any], tensors: Any) -> str:
    text = json.dumps({"header": header, "tensors": tensors}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
