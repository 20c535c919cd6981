"""From a name to a backbone: built from its weights, shared by the process, or with structure alone."""

from __future__ import annotations

from threading import Lock

import torch
from torch import Tensor

from clipbench.backbone import hashing, load, open_clip_towers, weights
from clipbench.backbone.image import ImageTower
from clipbench.backbone.model import INITIAL_LOG_SCALE, Backbone, text_prefix
from clipbench.backbone.random_weights import random_tensors
from clipbench.backbone.shapes import OpenClipOnly
from clipbench.backbone.spec import BackboneSpec, resolve_spec
from clipbench.backbone.text import TextTower
from clipbench.errors import BackboneError

__all__ = ["Backbone", "backbone_hash", "build_backbone", "describe_backbone", "load_backbone"]

MAX_SHOWN = 4  # tensors named in a message
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
    """A backbone of one's own, not shared: read, built, hashed.

    Args:
        name: see `spec.py`.

    Raises:
        UnknownName: no such architecture or tag.
        BackboneError: weights that are absent, damaged or of another architecture.
    """
    spec = resolve_spec(name)
    of_open_clip = [isinstance(shape, OpenClipOnly) for shape in (spec.image_shape, spec.text_shape)]
    with torch.random.fork_rng(devices=[]), torch.device("cpu" if any(of_open_clip) else "meta"):
        torch.manual_seed(0)
        backbone = _towers(spec)
    tensors = _random(backbone) if spec.source == "random" else _loaded(backbone, load.read_state(spec))
    _assign(backbone, tensors)
    if spec.source == "mini":
        from clipbench.mini import weights as embedded

        backbone._known = embedded.load_weights()[2]
    key = _hash_key(spec)
    backbone.hash = (hashing.read_cached(key) if key else None) or backbone.compute_hash()
    if key:
        hashing.write_cached(key, backbone.hash)
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
    """open_clip's tensors in our names.

    Raises:
        BackboneError: tensors are missing, or there are some that the architecture does not have.
    """
    state = weights.with_text_prefix(state, text_prefix(backbone.spec))
    scalars = ["logit_scale"] if backbone.logit_bias is None else ["logit_scale", "logit_bias"]
    if backbone.logit_bias is not None:
        state.setdefault("logit_bias", torch.tensor(0.0))  # as open_clip fills in for weights without one
    tables = {"image": backbone.image.table(), "text": backbone.text.table()}
    wanted = {*scalars, *(entry.open_clip_name for table in tables.values() for entry in table)}
    wrong = [f"no tensor '{name}'" for name in sorted(wanted) if name not in state]
    wrong += [f"a tensor '{name}' too many" for name in state if name not in wanted and not name.startswith(UNUSED)]
    if wrong:
        raise BackboneError(
            f"the weights of backbone '{backbone.spec.name}' are of another architecture than"
            f" {backbone.spec.architecture}: {_some(wrong)}"
        )
    if isinstance(backbone.image, ImageTower):
        positions = state["visual.positional_embedding"]
        state["visual.positional_embedding"] = weights.resample_positions(positions, backbone.image.shape.grid)
    out = {name: state[name].reshape(()) for name in scalars}
    for name, table in tables.items():
        out |= {f"{name}.{key}": tensor for key, tensor in weights.from_open_clip(state, table).items()}
    return out


def _some(wrong: list[str]) -> str:
    """The first few faults, and how many more there are."""
    return ", ".join(wrong[:MAX_SHOWN]) + (f" and {len(wrong) - MAX_SHOWN} more" if len(wrong) > MAX_SHOWN else "")


def _assign(backbone: Backbone, tensors: dict[str, Tensor]) -> None:
    """Put tensors into the modules.

    Raises:
        BackboneError: a tensor is of another shape.
    """
    wrong = [
        f"{name} is {'x'.join(map(str, tensors[name].shape))}, not {'x'.join(map(str, wanted.shape))}"
        for name, wanted in backbone.state_dict().items()
        if tensors[name].shape != wanted.shape
    ]
    if wrong:
        name, architecture = backbone.spec.name, backbone.spec.architecture
        raise BackboneError(f"the weights of backbone '{name}' do not fit {architecture}: {_some(wrong)}")
    backbone.load_state_dict({name: tensor.contiguous() for name, tensor in tensors.items()}, assign=True)
    mean, std = backbone.spec.preprocessing.mean, backbone.spec.preprocessing.std
    backbone._mean, backbone._std = torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)
    backbone.requires_grad_(False)
    backbone.eval()


def _hash_key(spec: BackboneSpec) -> str | None:
    """Key of the hash in the cache; None where nothing on disk determines the tensors."""
    file = load.weights_file(spec)
    if file is None or not file.is_file():
        return None
    return hashing.file_key(file, spec.architecture, spec.image_size if spec.resized else "native")


_SHARED: dict[str, Backbone] = {}
_LOCK = Lock()


def load_backbone(name: str) -> Backbone:
    """The shared instance of a backbone: loaded once a process, frozen, in eval mode, immutable.

    Args:
        name: see `spec.py`, for example "ViT-B-16/openai" or "mini".

    Raises:
        UnknownName: no such architecture or tag.
        BackboneError: weights that are absent, damaged or of another architecture.
    """
    with _LOCK:
        if name not in _SHARED:
            backbone = build_backbone(name)
            backbone.share()
            _SHARED[name] = backbone
        return _SHARED[name]


def backbone_hash(name: str) -> str:
    """Hash of the tensors of a backbone; without building it where the weights file has been hashed before."""
    if name in _SHARED:
        return _SHARED[name].hash
    key = _hash_key(resolve_spec(name))
    return (hashing.read_cached(key) if key else None) or load_backbone(name).hash
