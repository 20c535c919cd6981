"""Finding and reading the weights of a spec; nothing is unpickled but plain tensors."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipbench.backbone import catalogue
from clipbench.backbone.spec import BackboneSpec
from clipbench.errors import BackboneError

PREFERRED = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
NOT_TENSORS = ("input_resolution", "context_length", "vocab_size")  # scalars in OpenAI's checkpoints


def weights_file(spec: BackboneSpec) -> Path | None:
    """The file that holds the weights, if it is on this machine; None for random weights too."""
    kind, _, rest = spec.source.partition(":")
    if kind == "mini":
        from clipbench.mini import weights

        return weights.PATH
    if kind == "file":
        return Path(rest)
    if kind == "folder":
        return _in_folder(Path(rest))
    if kind == "tag":
        return _in_caches(catalogue.pretrained_tags()[spec.architecture][rest])
    return None


def _in_folder(folder: Path) -> Path | None:
    """The checkpoint of an open_clip folder, by open_clip's order of preference."""
    files = [file for suffix in ("safetensors", "bin", "pth") for file in sorted(folder.glob(f"*.{suffix}"))]
    by_name = {file.name: file for file in files}
    return next((by_name[name] for name in PREFERRED if name in by_name), files[0] if files else None)


def _hub(entry: dict[str, Any]) -> tuple[str, list[str]]:
    """Repository and file names on the hub of a tag, safetensors first."""
    repository, _, file = entry.get("hf_hub", "").rpartition("/")
    if not file:
        return repository, ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    safe = file.rsplit(".", 1)[0] + ".safetensors"
    return repository, [safe, file] if safe != file else [file]


def _in_caches(entry: dict[str, Any]) -> Path | None:
    """The file of a tag in the hub's cache or in open_clip's own."""
    repository, names = _hub(entry)
    if repository:
        try:
            from huggingface_hub import try_to_load_from_cache
        except ImportError:
            pass
        else:
            for name in names:
                found = try_to_load_from_cache(repository, name)
                if isinstance(found, str):
                    return Path(found)
    own = Path("~/.cache/clip").expanduser() / os.path.basename(entry.get("url", ""))
    return own if own.is_file() and own.suffix == ".safetensors" else None


def _fetch(spec: BackboneSpec) -> Path:
    """Download the weights of a tag, or say what to put where.

    Raises:
        BackboneError: no connection, or the hub refuses.
    """
    tag = spec.source.partition(":")[2]
    entry = catalogue.pretrained_tags()[spec.architecture][tag]
    repository, names = _hub(entry)
    try:
        from open_clip.pretrained import download_pretrained

        return Path(download_pretrained(entry))
    except Exception as error:  # the hub raises dozens of types
        where = f"{names[0]} of https://huggingface.co/{repository}" if repository else entry.get("url", "")
        file = names[0] if repository else Path(where).name
        advised = f"{spec.architecture}@FOLDER/{file}"
        if spec.activation == "quickgelu":
            advised += "?activation=quickgelu"
        reason = str(error).strip().splitlines()
        raise BackboneError(
            f"the weights of backbone '{spec.name}' are not on this machine and could not be downloaded"
            f" ({reason[0][:160] if reason else type(error).__name__}); bring {where} here in another way, put it into"
            f" any folder and name the backbone '{advised}'"
        ) from error


def read_state(spec: BackboneSpec) -> dict[str, Tensor]:
    """All tensors of a spec in open_clip's names, widened to float32 (which is exact).

    Args:
        spec: any but a random one.

    Raises:
        BackboneError: the weights are absent, damaged, or would have to be unpickled; or are OpenAI's while the
            architecture does not say QuickGELU.
    """
    if spec.source == "mini":
        from clipbench.mini import weights

        arrays, _, _ = weights.load_weights()
        return {name: _widened(torch.from_numpy(array)) for name, array in arrays.items()}
    file = weights_file(spec)
    if file is None and spec.source.startswith("tag:"):
        file = _fetch(spec)
    if file is None or not file.is_file():
        folder = spec.source.partition(":")[2]
        raise BackboneError(f"backbone '{spec.name}': no weights in {folder} (looked for {PREFERRED[0]} and the like)")
    state = _read(file)
    if spec.source.startswith("file:"):
        _check_activation(spec, state)
    for key in NOT_TENSORS:
        state.pop(key, None)
    return {name: _widened(tensor) for name, tensor in state.items()}


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _read(file: Path) -> dict[str, Tensor]:
    """The state dict of a file."""
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        text = str(error)
        if "TorchScript" in text:
            raise BackboneError(
                f"{file} is a TorchScript archive, which is code and not only tensors; convert it once, where you trust"
                f" it: torch.save(torch.jit.load('{file.name}', map_location='cpu').state_dict(), 'weights.pt')"
            ) from error
        if isinstance(error, pickle.UnpicklingError) and "Unsupported global" in text:
            raise BackboneError(
                f"{file} holds more than tensors and is not unpickled for safety; save its state dict as safetensors"
            ) from error
        raise BackboneError(f"{file} cannot be read as weights ({type(error).__name__}: {_gist(text)})") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, (Tensor, int)) for value in state.values()):
        raise BackboneError(f"{file} holds no state dict of tensors")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _gist(text: str) -> str:
    """The line that says what is wrong; torch wraps it in advice to load unsafely."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if line.startswith("Unsupported")), lines[0] if lines else "empty")[:160]


def _check_activation(spec: BackboneSpec, state: dict[str, Tensor]) -> None:
    """Refuse weights that look like OpenAI's under an architecture that says GELU, unless the user decided."""
    tags = catalogue.pretrained_tags().get(spec.architecture, {})
    if spec.activation == "quickgelu" or spec.activation_given or "openai" not in tags:
        return
    first = state.get("visual.conv1.weight")
    half = first is not None and torch.equal(first.float(), first.to(torch.float16).float())
    if half or any(key in state for key in NOT_TENSORS):
        option = f"{spec.name}{'&' if spec.resized else '?'}activation="
        raise BackboneError(
            f"the weights of backbone '{spec.name}' look like OpenAI's (half precision), which need QuickGELU, but"
            f" {spec.architecture} has GELU: name it '{option}quickgelu', or '{option}gelu' if they are not"
        )
