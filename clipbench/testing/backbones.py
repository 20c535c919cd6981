"""Tiny random backbones in open_clip's `local-dir:` form, for tests: our towers, BatchNorm, open_clip's own towers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
VISION = {"image_size": 32, "patch_size": 8, "width": 48, "head_width": 24, "layers": 2}
# a small real family with BatchNorm, and dropout before the pooled features
BATCHNORM = {
    "timm_model_name": "test_efficientnet", "timm_model_pretrained": False, "timm_pool": "avg", "timm_proj": "linear",
    "timm_drop": 0.5, "timm_drop_path": 0.2, "image_size": 32,
}  # fmt: skip
# a text tower with a class token at its end (CoCa's): not ours
CLASS_TOKEN = TEXT | {"embed_cls": True}
PIXELS = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bicubic", "resize_mode": "shortest"}


def write(folder: Path, vision: dict[str, Any], text: dict[str, Any], seed: int = 0, **model: Any) -> str:
    """Write a random backbone; returns its name (`local-dir:...`). Written once."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    config = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text} | model
    file = folder / "open_clip_model.safetensors"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
            network = kind(**config)
            for name, parameter in network.named_parameters():
                if name.endswith("bias") or "ln_" in name:
                    parameter.data += 0.05 * torch.randn_like(parameter)
        config = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text} | model
        (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": PIXELS}))
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, file)
    return f"local-dir:{folder}"


def write_transformer(folder: Path) -> str:
    """Two small transformer towers."""
    return write(folder, VISION, TEXT)


def write_batchnorm(folder: Path) -> str:
    """An image tower with BatchNorm, dropout and stochastic depth."""
    return write(folder, BATCHNORM, TEXT)


def write_open_clip_only(folder: Path, tower: str) -> str:
    """A backbone whose tower of that name is no transformer of ours."""
    if tower == "image":
        return write(folder, BATCHNORM, TEXT)
    return write(folder, VISION, CLASS_TOKEN, custom_text=True)
