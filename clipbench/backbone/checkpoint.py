"""One file of weights as named tensors, whatever its form; what else it may be is said in one sentence.

The form is that of its content, not of its name: safetensors, `torch.save` (unpickled with `weights_only`), a
TorchScript archive (its tensors alone), or an index of shards.
"""

from __future__ import annotations

import json
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from clipbench.backbone.torchscript import is_torchscript, read_torchscript
from clipbench.errors import BackboneError

# What readers of damaged bytes raise; there is no shorter list
DAMAGED = (
    pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, ValueError, LookupError,
    TypeError, AttributeError, AssertionError, ArithmeticError, EOFError, OSError, MemoryError, NotImplementedError,
)  # fmt: skip
# Keys that training runs keep a state dict under
UNDER = ("state_dict", "model_state_dict", "model", "module", "ema", "model_ema", "state_dict_ema", "net", "params")
# What wrappers put before every name
WRAPPERS = ("module.", "_orig_mod.", "model.", "clip_model.", "clip.", "backbone.")
INDEX = ".index.json"
LARGEST_HEADER = 100_000_000  # bytes; the safetensors library's own limit
SHOWN = 5
UNPICKLER = "WeightsUnpickler error:"


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, without what a wrapper put before the names.

    Raises:
        BackboneError: it is no file of weights, damaged, or would have to be unpickled; says what it is.
    """
    if not file.is_file():
        raise BackboneError(f"{file} {'is no plain file' if file.exists() else 'is not there'}")
    try:
        with file.open("rb") as opened:
            head = opened.read(64)
        if file.name.endswith(INDEX):
            return _sharded(file)
        if _is_safetensors(head):
            return _safetensors(file)
        if head.startswith(b"PK\x03\x04"):
            return _zipped(file)
        if head.startswith(b"\x80"):
            return _state_dict(_unpickled(file), file)
    except OSError as error:
        raise BackboneError(f"{file} cannot be read ({error.strerror or error})") from error
    raise BackboneError(f"{file} cannot be read as weights: it {_other(head)}")


def _is_safetensors(head: bytes) -> bool:
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= LARGEST_HEADER


def _other(head: bytes) -> str:
    """What a file is that is none of weights, by its first bytes."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "is empty"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "is a web page, as a server sends in place of a file (a login, an error)"
    if text.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file itself: `git lfs pull` fetches it"
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!")):
        return "is compressed: unpack it first"
    if head.startswith(b"\x89HDF"):
        return "is an HDF5 file, which is not read"
    if not head.strip(b"\0"):
        return "begins with zeros: a download that was not finished"
    return "is none of safetensors, torch.save and TorchScript"


def _safetensors(file: Path) -> dict[str, Tensor]:
    size = file.stat().st_size
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(length)) if 8 + length <= size else {}
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        needed = 8 + length + max(ends, default=0)
        if needed > size:
            raise BackboneError(f"{file} cannot be read as weights: it is cut off, {size:,} of {needed:,} bytes")
        if "clipbench" in (header.get("__metadata__") or {}):
            raise BackboneError(f"{file} holds what a method learned, not a backbone: it is for --weights")
        state: Any = load_file(file)
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise BackboneError(f"{file} cannot be read as weights (safetensors: {gist(str(error))})") from error
    return _unwrapped(state, file)


def _zipped(file: Path) -> dict[str, Tensor]:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except DAMAGED as error:
        raise BackboneError(f"{file} cannot be read as weights: it is cut off or damaged ({error})") from error
    if is_torchscript(names):
        try:
            return _unwrapped(read_torchscript(file), file)
        except DAMAGED as error:
            raise BackboneError(f"{file}, a TorchScript archive, cannot be read ({gist(str(error))})") from error
    if any(name.endswith("data.pkl") for name in names):
        return _state_dict(_unpickled(file), file)
    if any(name.endswith(".npy") for name in names):
        raise BackboneError(f"{file} is an archive of NumPy arrays (big_vision, JAX), which is not read")
    raise BackboneError(f"{file} is a zip archive without weights of torch; unpack it (it holds {_some(names)})")


def _unpickled(file: Path) -> Any:
    """The content of what `torch.save` wrote, as far as it is plain data."""
    try:
        with warnings.catch_warnings(), file.open("rb") as opened:  # by its content: torch goes by the ending
            warnings.simplefilter("ignore")  # of protocols and sparse tensors, meant for authors of torch
            return torch.load(opened, map_location="cpu", weights_only=True)
    except DAMAGED as error:
        text = str(error)
        if "unsupported " in text.lower() and isinstance(error, pickle.UnpicklingError):
            raise BackboneError(
                f"{file} holds more than tensors and is not unpickled for safety ({gist(text)}); save its state dict as"
                " safetensors"
            ) from error
        raise BackboneError(f"{file} cannot be read as weights ({type(error).__name__}: {gist(text)})") from error


def _sharded(file: Path) -> dict[str, Tensor]:
    """The tensors of all shards that an index names, which lie beside it."""
    try:
        shards = json.loads(file.read_text(encoding="utf-8"))["weight_map"]
        names = sorted({str(name) for name in shards.values()})
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise BackboneError(f"{file} is not an index of shards ({type(error).__name__}: {error})") from error
    outside = [name for name in names if Path(name).name != name or name.endswith(INDEX)]
    if outside:
        raise BackboneError(f"{file} names the shard '{outside[0]}', which is no file beside it")
    missing = [name for name in names if not (file.parent / name).is_file()]
    if missing:
        raise BackboneError(f"{file} names shards that are not there: {_some(missing)}")
    state: dict[str, Tensor] = {}
    for name in names:
        state |= read_tensors(file.parent / name)
    if absent := sorted(set(_without_wrapper(list(shards)).values()) - set(state)):
        raise BackboneError(f"the shards of {file} do not hold {_some(absent)}")
    return state


def _state_dict(content: Any, file: Path) -> dict[str, Tensor]:
    """The state dict in what was saved: itself, or under one of the usual keys."""
    for _ in range(3):
        if not isinstance(content, Mapping):
            raise BackboneError(f"{file} holds no state dict of tensors but {_kind(content)}")
        tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
        within = [name for name in UNDER if _holds_tensors(content.get(name))]
        if len(within) > 1:
            raise BackboneError(f"{file} holds several state dicts ({', '.join(within)}): save the one that is meant")
        if within and not any(name.count(".") for name in tensors):
            content = content[within[0]]
            continue
        if tensors:
            return _unwrapped({str(name): tensor for name, tensor in tensors.items()}, file)
        break
    found = [f"'{name!s}' ({_kind(value)})" for name, value in content.items()] if isinstance(content, Mapping) else []
    raise BackboneError(f"{file} holds no state dict of tensors (found: {_some(found) or 'nothing'})")


def _holds_tensors(value: Any, depth: int = 3) -> bool:
    if not isinstance(value, Mapping) or not depth:
        return False
    return any(isinstance(one, Tensor) or _holds_tensors(one, depth - 1) for one in value.values())


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"one tensor of shape {tuple(value.shape)}"
    return f"{type(value).__name__} of {len(value)}" if isinstance(value, (Mapping, list, tuple)) else repr(value)[:40]


def _unwrapped(state: Mapping[str, Tensor], file: Path) -> dict[str, Tensor]:
    for name, tensor in state.items():
        if not name.isprintable():
            raise BackboneError(f"{file} cannot be read as weights: {name[:80]!r} is no name of a tensor")
        if tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
            kind = "holds no numbers" if tensor.is_meta else "is sparse, quantised or complex"
            raise BackboneError(f"{file} cannot be read as weights: its tensor '{name}' {kind}")
    names = _without_wrapper(list(state))
    return {names[name]: tensor for name, tensor in state.items()}


def _without_wrapper(names: list[str]) -> dict[str, str]:
    """Each name and what it is without what a wrapper put before all of them."""
    out = {name: name for name in names}
    while out and any(all(name.startswith(wrapper) for name in out.values()) for wrapper in WRAPPERS):
        wrapper = next(one for one in WRAPPERS if all(name.startswith(one) for name in out.values()))
        out = {name: short.removeprefix(wrapper) for name, short in out.items()}
    return out


def _some(names: list[str]) -> str:
    shown = [name[:80] if name.isprintable() else repr(name[:80]) for name in names[:SHOWN]]
    return ", ".join(shown) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def gist(text: str) -> str:
    """The line that says what is wrong; torch wraps it in advice to load unsafely."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = next((line for line in lines if "nsupported" in line or UNPICKLER in line), lines[0] if lines else "empty")
    line = line.rpartition(UNPICKLER)[2].strip()
    return re.split(r" Please use| was not an allowed| whose module", line)[0].replace("GLOBAL ", "")[:160]
