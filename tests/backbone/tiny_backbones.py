"""Tiny backbones written as `local-dir:` folders, with weights in which no bias and no norm is trivial."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from clipbench.backbone.clip import describe_backbone
from clipbench.backbone.random_weights import random_tensors

WEIGHTS = "open_clip_model.safetensors"
VISION = {"image_size": 16, "patch_size": 8, "width": 24, "layers": 3, "head_width": 8}
TEXT = {"context_length": 20, "vocab_size": 64, "width": 16, "heads": 2, "layers": 2}


def write_folder(folder: Path, vision: dict[str, Any], text: dict[str, Any], **model: Any) -> str:
    """A `local-dir:` backbone of that shape; returns its name."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_cfg": {"embed_dim": 12, "vision_cfg": vision, "text_cfg": text, **model},
        "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "interpolation": "bilinear"},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    name = f"local-dir:{folder}"
    empty = describe_backbone(name)
    tensors = {f"image.{k}": v for k, v in random_tensors(empty.image, "image").items()}
    tensors |= {f"text.{k}": v for k, v in random_tensors(empty.text, "text").items()}
    tensors |= {"logit_scale": torch.tensor(2.0)}
    if empty.logit_bias is not None:
        tensors["logit_bias"] = torch.tensor(-3.0)
    empty.load_state_dict(tensors, assign=True)
    save_file({k: v.contiguous() for k, v in empty.to_open_clip_state_dict().items()}, folder / WEIGHTS)
    return name
