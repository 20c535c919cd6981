"""The tensors of a TorchScript archive, such as OpenAI published its weights in, without running any of its code.

Such a file is a zip of code, of which only the lists of parameters and buffers are read, of a pickle that arranges the
modules, and of the bytes of tensors. The pickle is read with a list of the few things that it may name; modules become
holders of their attributes.
"""

from __future__ import annotations

import collections
import io
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

STORAGES = {
    "FloatStorage": torch.float32, "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64, "LongStorage": torch.int64, "IntStorage": torch.int32, "ShortStorage": torch.int16,
    "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip
DEEPEST = 64  # modules inside modules
LARGEST = 100_000_000  # bytes of code or of the pickle; tensors are not compressed


class Holder:
    """A module of the archive: its tensors and modules, and nothing that could run."""

    learned: frozenset[str] = frozenset()  # names of its parameters and buffers; other tensors are no part of its state

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}


def is_torchscript(names: list[str]) -> bool:
    """Whether a zip of these names is a TorchScript archive; `torch.save` writes no constants."""
    return any(name.endswith("/constants.pkl") for name in names)


def read_torchscript(file: Path) -> dict[str, Tensor]:
    """Parameters and buffers by their names in the state dict.

    Raises:
        pickle.UnpicklingError: the archive names something that is neither a module nor a tensor.
        Exception: what a damaged archive leads to, as `checkpoint.DAMAGED` lists.
    """
    with zipfile.ZipFile(file) as archive:
        roots = [name.removesuffix("data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise pickle.UnpicklingError("it holds no data.pkl, or several")
        top = _Reader(archive, roots[0]).load()
    return dict(_tensors(top, "", 0))


def _tensors(module: Any, prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    if depth > DEEPEST:
        raise pickle.UnpicklingError("modules inside modules without end")
    for name, value in module.attributes.items() if isinstance(module, Holder) else ():
        if isinstance(value, Tensor) and name in module.learned:
            yield prefix + name, value
        elif isinstance(value, Holder):
            yield from _tensors(value, f"{prefix}{name}.", depth + 1)


class _Reader(pickle.Unpickler):
    """Reads `data.pkl` with a closed list of names."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(_unzipped(archive, f"{root}data.pkl")))
        self.archive, self.root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        """What a name of the pickle stands for; nothing is imported."""
        if module.startswith("__torch__"):
            return self._holder(module, name)
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        known: dict[tuple[str, str], Callable[..., Any]] = {
            ("torch._utils", "_rebuild_tensor_v2"): _rebuilt,
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
            ("torch.jit._pickle", "restore_type_tag"): lambda value, _: value,
            ("collections", "OrderedDict"): collections.OrderedDict,
        }
        lists = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")
        known |= {("torch.jit._pickle", one): list for one in lists}
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"Unsupported global: {module}.{name}")
        return known[module, name]

    def _holder(self, module: str, name: str) -> type[Holder]:
        """What stands for a module's class, whose code begins with `__parameters__` and `__buffers__`."""
        code = _unzipped(self.archive, f"{self.root}code/{module.replace('.', '/')}.py").decode()
        begin = re.search(
            rf"^class {re.escape(name)}\(Module\):\n((?: +__(?:parameters|buffers)__ = .*\n)*)", code, re.M
        )
        if begin is None:
            raise pickle.UnpicklingError(f"its code has no module '{name}'")
        return type(name, (Holder,), {"learned": frozenset(re.findall(r'"([^"]+)"', begin[1]))})

    def persistent_load(self, saved: Any) -> Tensor:
        """The numbers of a storage, one after the other."""
        _, kind, key, *_ = saved
        entry = self.archive.getinfo(f"{self.root}data/{key}")
        if entry.compress_type != zipfile.ZIP_STORED:
            raise pickle.UnpicklingError("its tensors are compressed")
        content = bytearray(self.archive.read(entry))
        return torch.frombuffer(content, dtype=kind) if content else torch.empty(0, dtype=kind)


def _unzipped(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > LARGEST:
        raise pickle.UnpicklingError(f"its {name} is larger than that of any model")
    return archive.read(name)


def _rebuilt(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return storage.as_strided(size, stride, offset)
