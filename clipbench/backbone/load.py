"""Finding the weights of a spec and reading them; what a file may hold is `checkpoint.py`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipbench.backbone import catalogue, hub, memory
from clipbench.backbone.checkpoint import INDEX, read_tensors
from clipbench.backbone.sources import refuse_no_file
from clipbench.backbone.spec import BackboneSpec, refuse_untagged, resolve_spec
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
ENDINGS = ("safetensors", "bin", "pth", "pt")
ON_HUB = ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
NOT_TENSORS = ("input_resolution", "context_length", "vocab_size")  # scalars in OpenAI's checkpoints


def weights_file(spec: BackboneSpec) -> Path | None:
    """The file that holds the weights, if it is on this machine; None for random weights too.

    Raises:
        BackboneError: a folder holds several files that may be meant.
    """
    kind, _, rest = spec.source.partition(":")
    if kind == "mini":
        from clipbench.mini import weights

        return weights.PATH
    if kind == "file":
        return Path(rest)
    if kind == "folder":
        return _in_folder(Path(rest))
    if kind == "hub":
        return hub.cached(rest, ON_HUB)
    if kind == "tag":
        return _in_caches(catalogue.pretrained_tags()[spec.architecture][rest])
    return None


def known_weights(spec: BackboneSpec) -> str:
    """`ARCH/TAG` of published weights, where a spec's are these and used as published; "" otherwise.

    By name, or by the SHA-256 of the file, which OpenAI's addresses state, wherever it lies.
    """
    if spec.pretrained or not spec.own_config or spec.resized:
        return spec.pretrained
    file = weights_file(spec)
    architecture = memory.openai_architecture(file) if file is not None else None
    if architecture is None:
        return ""
    name = f"{architecture}/openai"
    published = resolve_spec(name)
    mine, theirs = ((one.activation, one.preprocessing, one.image_shape, one.text_shape) for one in (spec, published))
    return name if mine == theirs else ""


def _in_folder(folder: Path) -> Path | None:
    """The checkpoint of an open_clip folder, by open_clip's order of preference, else the only one.

    Raises:
        BackboneError: there are several.
    """
    by_name = {file.name: file for ending in ENDINGS for file in sorted(folder.glob(f"*.{ending}"))}
    for name in PREFERRED:
        if name in by_name:
            return by_name[name]
        if (folder / (name + INDEX)).is_file():
            return folder / (name + INDEX)
    if len(by_name) > 1:
        names = sorted(by_name)
        raise BackboneError(
            f"the folder '{folder}' holds several checkpoints ({', '.join(names[:5])}"
            f"{f' and {len(names) - 5} more' if len(names) > 5 else ''}): name the one that is meant, as"
            f" '{folder / names[-1]}'"
        )
    return next(iter(by_name.values()), None)


def _on_hub(entry: dict[str, Any]) -> tuple[str, list[str]]:
    """Repository and file names on the hub of a tag, safetensors first."""
    repository, _, file = entry.get("hf_hub", "").rpartition("/")
    if not file:
        return repository, ON_HUB
    safe = file.rsplit(".", 1)[0] + ".safetensors"
    return repository, [safe, file] if safe != file else [file]


def _in_caches(entry: dict[str, Any]) -> Path | None:
    """The file of a tag in the hub's cache, or in the one that open_clip and OpenAI's own package share."""
    repository, names = _on_hub(entry)
    there = hub.cached(repository, names) if repository else None
    if there is not None:
        return there
    address = entry.get("url", "")
    own = Path(os.path.expanduser("~/.cache/clip")) / os.path.basename(address)
    if not address or not own.is_file():
        return None
    return own if memory.file_digest(own).startswith(_digest_in(address)) else None


def _digest_in(address: str) -> str:
    """The SHA-256 that an address states, or its beginning; "" where it states none."""
    if "openaipublic" in address:
        return address.split("/")[-2]
    return Path(address).stem.rpartition("-")[2] if "mlfoundations" in address else ""


def _fetch(spec: BackboneSpec) -> Path:
    """Download the weights of a tag, or say at once what to put where.

    Raises:
        BackboneError: no connection, or the hub refuses.
    """
    entry = catalogue.pretrained_tags()[spec.architecture][spec.source.partition(":")[2]]
    repository, names = _on_hub(entry)
    address = entry.get("url", "")
    try:
        if repository:
            return hub.download(repository, names)
        hub.refuse_offline(address)
        return _from_address(entry)
    except hub.NotFetched as reason:
        where = f"{names[0]} of {hub.HUB}/{repository}" if repository else address
        advised = f"{spec.architecture}@FOLDER/{names[0] if repository else Path(address).name}"
        if spec.activation == "quickgelu":
            advised += "?activation=quickgelu"
        raise BackboneError(
            f"the weights of backbone '{spec.name}' are not on this machine and could not be downloaded ({reason});"
            f" bring {where} here in another way, put it into any folder and name the backbone '{advised}'"
        ) from reason


def _from_address(entry: dict[str, Any]) -> Path:
    """Weights that are on no hub, by open_clip's own download.

    Raises:
        NotFetched: with the reason.
    """
    from open_clip.pretrained import download_pretrained

    try:
        return Path(download_pretrained(entry))
    except (OSError, RuntimeError) as error:  # RuntimeError: the file's SHA-256 is another
        raise hub.NotFetched(hub.gist(error)) from error


def read_state(spec: BackboneSpec) -> dict[str, Tensor]:
    """All tensors of a spec in open_clip's names, as they are stored.

    Args:
        spec: any but a random one.

    Raises:
        ConfigError: an architecture without saying which weights.
        BackboneError: the weights are absent, damaged, or would have to be unpickled; or are OpenAI's while the
            architecture does not say QuickGELU.
    """
    refuse_untagged(spec)
    if spec.source == "mini":
        from clipbench.mini import weights

        arrays, _, _ = weights.load_weights()
        return {name: torch.from_numpy(array) for name, array in arrays.items()}
    file = weights_file(spec)
    kind, _, rest = spec.source.partition(":")
    if file is None and kind == "tag":
        file = _fetch(spec)
    if file is None and kind == "hub":
        file = hub.fetched(rest, ON_HUB, spec.name)
    if file is None:
        raise BackboneError(f"backbone '{spec.name}': no weights in {rest} (looked for {PREFERRED[0]} and the like)")
    refuse_no_file(file, spec.name)
    state = read_tensors(file)
    if kind == "file" and not spec.own_config:
        _check_activation(spec, state)
    for key in NOT_TENSORS:
        state.pop(key, None)
    return state


def check_values(spec: BackboneSpec, state: dict[str, Tensor]) -> None:
    """Refuse tensors whose numbers are no weights.

    Raises:
        BackboneError: names the tensor.
    """
    for name, tensor in state.items():
        # the sum first: twelve times as fast, and finite numbers seldom sum to infinity
        if tensor.is_floating_point() and not torch.isfinite(tensor.sum()):
            wrong = int((~torch.isfinite(tensor)).sum())
            if wrong:
                raise BackboneError(
                    f"the weights of backbone '{spec.name}' are spoilt: {wrong:,} of the {tensor.numel():,} numbers of"
                    f" tensor '{name}' are NaN or infinite; take the file from its source again"
                )
    scale = state["logit_scale"]
    if not torch.isfinite(scale.exp()):
        raise BackboneError(
            f"the weights of backbone '{spec.name}' are spoilt: the exponential of logit_scale {float(scale):g} is"
            " infinite"
        )


def _check_activation(spec: BackboneSpec, state: dict[str, Tensor]) -> None:
    """Refuse weights that look like OpenAI's under an architecture that says GELU, unless that is decided."""
    tags = catalogue.pretrained_tags().get(spec.architecture, {})
    if spec.activation == "quickgelu" or spec.activation_given or "openai" not in tags:
        return
    first = state.get("visual.conv1.weight")
    half = first is not None and torch.equal(first.float(), first.to(torch.float16).float())
    if half or any(key in state for key in NOT_TENSORS):
        option = f"{spec.name}{'&' if '?' in spec.name else '?'}activation="
        raise BackboneError(
            f"the weights of backbone '{spec.name}' look like OpenAI's (half precision), which need QuickGELU, but"
            f" {spec.architecture} has GELU: name it '{option}quickgelu', or '{option}gelu' if they are not"
        )
