"""From a name to a backbone: built from its weights, shared by the process, or with structure alone."""

from __future__ import annotations

import os
from threading import Lock
from typing import TypeGuard

import torch
from torch import Tensor

from clipbench.backbone import load, memory, open_clip_towers, weights
from clipbench.backbone.checkpoint import INDEX
from clipbench.backbone.image import ImageTower
from clipbench.backbone.model import INITIAL_LOG_SCALE, Backbone, text_prefix
from clipbench.backbone.random_weights import random_tensors
from clipbench.backbone.recognise import what_it_is
from clipbench.backbone.shapes import OpenClipOnly
from clipbench.backbone.spec import BackboneSpec, refuse_untagged, resolve_spec
from clipbench.backbone.text import TextTower
from clipbench.errors import BackboneError

__all__ = ["Backbone", "backbone_hash", "build_backbone", "describe_backbone", "load_backbone"]

MAX_SHOWN = 4  # tensors named in a message
LONGEST_SIDE = 1024  # patches in a row
# CoCa's captioner, and what older torch and transformers stored besides tensors that are learned
UNUSED = ("text_decoder.", "attn_mask", "text.attn_mask", "text.transformer.embeddings.position_ids")


def _towers(spec: BackboneSpec) -> Backbone:
    """The modules of a spec, on the current default device."""
    image, text, prefix = spec.image_shape, spec.text_shape, text_prefix(spec)
    return Backbone(
        spec,
        open_clip_towers.build_image(spec, image.reason) if isinstance(image, OpenClipOnly) else ImageTower(image),
        open_clip_towers.build_text(spec, text.reason, prefix)
        if isinstance(text, OpenClipOnly)
        else TextTower(text, prefix),
        has_logit_bias=spec.config.get("init_logit_bias") is not None,
    )


def describe_backbone(name: str) -> Backbone:
    """A backbone on the meta device: names, shapes and counts without weights.

    Raises:
        UnknownName: no such architecture or tag.
        BackboneError: a tower of open_clip's own that cannot be built.
    """
    with torch.device("meta"):
        return _towers(resolve_spec(name))


def build_backbone(name: str) -> Backbone:
    """A backbone of one's own, not shared: read, built, and hashed as it was loaded, whatever is remembered.

    Args:
        name: see `spec.py`.

    Raises:
        UnknownName: no such architecture or tag.
        BackboneError: weights that are absent, damaged or of another architecture.
    """
    spec = resolve_spec(name)
    refuse_untagged(spec)
    before = _hash_key(spec)
    of_open_clip = [isinstance(shape, OpenClipOnly) for shape in (spec.image_shape, spec.text_shape)]
    with torch.random.fork_rng(devices=[]), torch.device("cpu" if any(of_open_clip) else "meta"):
        torch.manual_seed(0)
        backbone = _towers(spec)
    _assign(backbone, _random(backbone) if spec.source == "random" else _loaded(backbone, load.read_state(spec)))
    if spec.source == "mini":
        from clipbench.mini import weights as embedded

        backbone._known = embedded.load_weights()[2]
    backbone.hash = backbone.compute_hash()
    key = _hash_key(spec)
    if key is not None and key == (before or key):  # the file was not replaced while it was read
        memory.remember(key, backbone.hash)
    return backbone


def _random(backbone: Backbone) -> dict[str, Tensor]:
    """Random tensors for our towers; those of open_clip's own keep what it drew from seed 0."""
    out = {"logit_scale": torch.tensor(INITIAL_LOG_SCALE)}
    if backbone.logit_bias is not None:
        out["logit_bias"] = torch.tensor(float(backbone.spec.config["init_logit_bias"]))
    for name, tower in (("image", backbone.image), ("text", backbone.text)):
        tensors = (
            tower.state_dict() if isinstance(tower, open_clip_towers.OpenClipTower) else random_tensors(tower, name)
        )
        out |= {f"{name}.{key}": tensor for key, tensor in tensors.items()}
    return out


def _loaded(backbone: Backbone, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's tensors in our names, widened to float32 (which is exact): names, shapes, types and values that fit.

    Raises:
        BackboneError: tensors are missing or too many, of another shape or type, or not finite.
    """
    spec = backbone.spec
    state = weights.with_text_prefix(state, text_prefix(spec))
    if backbone.logit_bias is not None:
        state.setdefault("logit_bias", torch.tensor(0.0))  # as open_clip fills in for weights without one
    wanted = backbone.to_open_clip_state_dict()
    wrong = [f"no tensor '{name}'" for name in sorted(wanted) if name not in state]
    wrong += [f"a tensor '{name}' too many" for name in state if name not in wanted and not name.startswith(UNUSED)]
    if wrong:
        raise BackboneError(
            f"the weights of backbone '{spec.name}' are of another architecture than {spec.architecture}:"
            f" {_some(wrong)}{_found(state)}"
        )
    positions = state.get("visual.positional_embedding")
    if isinstance(backbone.image, ImageTower) and _names_its_size(spec) and _is_a_grid(positions):
        state["visual.positional_embedding"] = weights.resample_positions(positions, backbone.image.shape.grid)
    wrong = [
        f"{name} is {_form(state[name], tensor)}, not {_form(tensor, state[name])}"
        for name, tensor in wanted.items()
        if (state[name].shape != tensor.shape and not tensor.ndim == 0 == state[name].numel() - 1)
        or state[name].is_floating_point() != tensor.is_floating_point()
    ]
    if wrong:
        raise BackboneError(
            f"the weights of backbone '{spec.name}' do not fit {spec.architecture}: {_some(wrong)}{_found(state)}"
        )
    state = {name: _widened(state[name].reshape(tensor.shape)) for name, tensor in wanted.items()}
    load.check_values(spec, state)
    out = {name: tensor for name, tensor in state.items() if name.startswith("logit_")}
    for name, tower in (("image", backbone.image), ("text", backbone.text)):
        out |= {f"{name}.{key}": tensor for key, tensor in weights.from_open_clip(state, tower.table()).items()}
    return out


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _is_a_grid(positions: Tensor | None) -> TypeGuard[Tensor]:
    """Whether positional embeddings can be resampled to another grid."""
    if positions is None or positions.ndim != 2 or not positions.is_floating_point():
        return False
    return len(positions) - 1 in {side * side for side in range(1, LONGEST_SIDE)}


def _names_its_size(spec: BackboneSpec) -> bool:
    """Whether somebody has said the image size; for a file of one's own open_clip's architecture is only a guess."""
    return spec.resized or bool(spec.own_config) or not spec.source.startswith("file:")


def _form(tensor: Tensor, other: Tensor) -> str:
    """The shape of a tensor, or its type where the other one has the same shape."""
    if tensor.shape == other.shape:
        return str(tensor.dtype).removeprefix("torch.")
    return "x".join(map(str, tensor.shape)) or "one number"


def _found(state: dict[str, Tensor]) -> str:
    """What the tensors are instead, as far as that is known."""
    found = what_it_is({name: tuple(tensor.shape) for name, tensor in state.items()})
    return f"; {found}" if found else ""


def _some(wrong: list[str]) -> str:
    """The first few faults, and how many more there are."""
    return ", ".join(wrong[:MAX_SHOWN]) + (f" and {len(wrong) - MAX_SHOWN} more" if len(wrong) > MAX_SHOWN else "")


def _assign(backbone: Backbone, tensors: dict[str, Tensor]) -> None:
    """Put tensors into the modules."""
    backbone.load_state_dict({name: tensor.contiguous() for name, tensor in tensors.items()}, assign=True)
    mean, std = backbone.spec.preprocessing.mean, backbone.spec.preprocessing.std
    backbone._mean, backbone._std = torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)
    backbone.requires_grad_(False)
    backbone.eval()


def _hash_key(spec: BackboneSpec) -> str | None:
    """Key of the hash in the memory; None where nothing on disk determines the tensors."""
    file = load.weights_file(spec)
    if file is None or not file.is_file():
        return None
    beside = sorted(file.parent.iterdir()) if file.name.endswith(INDEX) else []
    shards = [memory.file_key(one) for one in beside if one.is_file()]
    return memory.file_key(file, spec.architecture, spec.image_size if spec.resized else "native", *shards)


_SHARED: dict[tuple[str, str], Backbone] = {}
_LOCK = Lock()


def _shared_key(name: str) -> tuple[str, str]:
    """The name, and the place that a relative path in it means now: the working directory may change."""
    kind, _, place = resolve_spec(name).source.partition(":")
    return name, os.path.abspath(place) if kind in ("file", "folder") else ""


def load_backbone(name: str) -> Backbone:
    """The shared instance of a backbone: loaded once a process, frozen, in eval mode, immutable.

    Args:
        name: see `spec.py`, for example "ViT-B-16/openai" or "mini".

    Raises:
        UnknownName: no such architecture or tag.
        BackboneError: weights that are absent, damaged or of another architecture.
    """
    key = _shared_key(name)
    with _LOCK:
        if key not in _SHARED:
            backbone = build_backbone(name)
            backbone.share()
            _SHARED[key] = backbone
        return _SHARED[key]


def backbone_hash(name: str) -> str:
    """Hash of the tensors of a backbone, as it is remembered of this very weights file, else by loading it.

    Who loads the tensors later compares: `Backbone.hash` is that of what was loaded.
    """
    loaded = _SHARED.get(_shared_key(name))
    if loaded is not None:
        return loaded.hash
    key = _hash_key(resolve_spec(name))
    return (memory.recall(key) if key else None) or load_backbone(name).hash
