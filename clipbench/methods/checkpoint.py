"""Lightning's checkpoints: what one says of itself, and when a method may take it."""

from __future__ import annotations

import os
import pickle
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from clipbench.backbone.clip import load_backbone
from clipbench.errors import MethodError
from clipbench.methods.header import OF_TRAINER, Header
from clipbench.methods.weights_file import Learned, refuse_larger_than_memory
from clipbench.records.settings import flat

if TYPE_CHECKING:
    from clipbench.methods.base import Method

PLACES = {"model.backbone", "data.root", "data.path"}  # the hash of the backbone and the class names decide


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint holds; nothing in it is run.

    Raises:
        MethodError: no such file, cut off, not a checkpoint of ours.
    """
    if not os.path.isfile(path):  # also where the name is none that could be
        raise MethodError(f"there is no checkpoint '{path}', or it is no plain file")
    refuse_larger_than_memory(path)
    try:
        with path.open("rb") as file:
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise MethodError(
            f"'{path}' cannot be read as a checkpoint: it is none, or holds more than tensors and plain data, of which "
            "nothing is ever run (learned weights are named by --weights)"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise MethodError(f"'{path}' cannot be read as a checkpoint: it is cut off") from error
    if not isinstance(checkpoint, dict):
        raise MethodError(f"'{path}' is no checkpoint of Lightning: it holds {type(checkpoint).__name__}")
    try:
        header_of(checkpoint)
    except MethodError as error:
        raise MethodError(f"'{path}': {error}") from error
    return checkpoint


def header_of(checkpoint: Mapping[str, Any]) -> Header:
    """The header that a method has written into a checkpoint; MethodError where there is none."""
    stored = checkpoint.get("clipbench")
    if not isinstance(stored, dict) or "header" not in stored or not isinstance(stored.get("span"), dict):
        raise MethodError("the checkpoint says not whose it is: it was not written by this version of clipbench")
    return Header.from_dict(stored["header"])


def take_checkpoint(method: Method, checkpoint: Mapping[str, Any]) -> None:
    """Make a method ready for the tensors of a checkpoint; set it up where no trainer has.

    Raises:
        MethodError: the checkpoint is of another method or backbone; in a fit also of other settings, data or classes.
    """
    header, name = header_of(checkpoint), type(method).__name__
    header.refuse_other(type(method), method.backbone_name, load_backbone(method.backbone_name).hash)
    if method.header is None:
        method.setup(learned=Learned(header, None, {}))
    if method._trainer is not None and method._trainer.state.fn == "fit":
        if method.has_optimizer:
            method.optimisation.refuse_other_span(method._trainer, checkpoint["clipbench"]["span"])
        refuse_other_settings(header, method.header)
        method.weights.fits = header.fits or 1
        method.weights.seen |= header.seen
        return
    if method.class_bound and method.classnames != tuple(header.classnames):
        dataset = method.task.dataset if method.task else ""
        raise MethodError(f"{name} has learned '{method.class_bound[0]}' for other classes than '{dataset}' has")
    method.header, method.classnames = header.on(method.backbone_name), tuple(header.classnames)
    method.weights.seen |= header.seen
    method.has_learned = True
    if method.task is not None:
        method.evaluation.begin(method.task, method.weights.seen, "test")


def refuse_other_settings(header: Header, now: Header | None) -> None:
    """Raise MethodError where a fit would go on otherwise than it began.

    Args:
        header: of the checkpoint.
        now: what the fit would leave.
    """
    assert now is not None
    parts = [_settings(one) for one in (header, now)]
    for name in ("data", "trainer"):  # checkpoints before format 3 do not have these, nor do data of one's own code
        if getattr(header, name) is None or getattr(now, name) is None:
            parts = [{key: value for key, value in part.items() if not key.startswith(name)} for part in parts]
    before, after = parts
    names = dict.fromkeys((*before, *after))
    other = [name for name in names if before.get(name) != after.get(name)]
    if other:
        shown = [f"{name} {_short(before.get(name))}, here {_short(after.get(name))}" for name in other[:3]]
        more = f" and {len(other) - 3} more" if len(other) > 3 else ""
        raise MethodError(
            f"the checkpoint is of a fit with other settings ({'; '.join(shown)}{more}): resume with the same"
        )


def _short(value: object) -> str:
    return textwrap.shorten(str(value), 60, placeholder=" ...")


def _settings(header: Header) -> dict[str, Any]:
    """What a fit must go on with, dotted as on the command line."""
    trainer = {name: value for name, value in (header.trainer or {}).items() if name in OF_TRAINER}
    found = flat({"model": header.init_args, "data": header.data or {}, "trainer": trainer})
    found |= {"train_seed": header.train_seed, "dataset": header.dataset}
    found |= {"templates": header.templates, "classes": header.classnames}
    return {name: value for name, value in found.items() if name not in PLACES}
