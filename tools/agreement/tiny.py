"""One tiny CLIP with random weights, as our backbone and as the official code's model; batches of it, and names."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import open_clip
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

BASE = ("abbey", "airplane cabin", "art gallery", "bakery", "ice skating rink", "zen garden")
NOVEL = ("aqueduct", "bamboo forest", "candy store", "church")
STEPS, BATCH, SIZE = 5, 8, 32
PIXELS = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0], "interpolation": "bicubic", "resize_mode": "shortest"}


def write_tiny(folder: Path, image_width: int = 192, text_width: int = 128, embed: int = 64, blocks: int = 3) -> str:
    """Write the tiny CLIP; returns the name of the backbone.

    Widths are multiples of 64, as the official code derives the heads from them. Every value is a half-precision
    number: the official loader rounds to half before it widens again.
    """
    config = {
        "embed_dim": embed,
        "quick_gelu": True,
        "vision_cfg": {"image_size": SIZE, "patch_size": 8, "width": image_width, "head_width": 64, "layers": blocks},
        "text_cfg": {
            "context_length": 77, "vocab_size": 49408, "width": text_width, "heads": text_width // 64, "layers": blocks,
        },
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = open_clip.CLIP(**config)
        state = {}
        for name, tensor in network.state_dict().items():
            value = tensor.clone()
            if name.endswith("bias") or "ln_" in name:
                value = value + 0.1 * torch.randn_like(value)
            state[name] = value.half().float().contiguous() if value.is_floating_point() else value
    state["logit_scale"] = torch.tensor(math.log(100)).half().float()
    folder.mkdir(parents=True, exist_ok=True)
    content = {"model_cfg": config, "preprocess_cfg": PIXELS}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    save_file(state, folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


def official_model(folder: Path, build_model: Callable[[dict[str, Tensor]], nn.Module]) -> nn.Module:
    """The same weights in the official code's own CLIP, in float32.

    Args:
        folder: where `write_tiny` wrote them.
        build_model: that of the checkout's `clip/model.py`.
    """
    state = load_file(folder / "open_clip_model.safetensors")
    return build_model({name: tensor for name, tensor in state.items() if name != "attn_mask"}).float()


def our_name(name: str) -> str:
    """Our name of a tensor of the official CLIP, "visual.transformer.resblocks.0.ln_1.bias", where both hold it alike.

    Stacked q, k and v, the convolution of the patches and the projections have no such name.
    """
    tower, name = ("image.", name.removeprefix("visual.")) if name.startswith("visual.") else ("text.", name)
    for theirs, ours in (("transformer.resblocks.", "blocks."), ("mlp.c_fc", "mlp.fc"), ("mlp.c_proj", "mlp.proj")):
        name = name.replace(theirs, ours)
    return tower + name


def batches() -> list[tuple[Tensor, Tensor]]:
    """Five batches of eight normalised images (8, 3, 32, 32) with labels among the base classes."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn((STEPS, BATCH, 3, SIZE, SIZE), generator=generator)
    labels = torch.randint(len(BASE), (STEPS, BATCH), generator=generator)
    return list(zip(images, labels, strict=True))


def test_images() -> Tensor:
    """(16, 3, 32, 32) normalised images that nobody trains on."""
    return torch.randn((16, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(2))
