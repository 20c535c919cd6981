"""What a state dict is that does not fit: by its names and shapes, the architecture of open_clip or another model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from clipbench.backbone import catalogue
from clipbench.backbone.shapes import ImageShape, TextShape, image_shape, text_shape

Shapes = Mapping[str, tuple[int, ...]]
BLOCK = re.compile(r"resblocks\.(\d+)\.")
STAGE = re.compile(r"visual\.layer([1-4])\.(\d+)\.conv1\.weight")
# The first pattern that some name fits; what it then is
OTHERS = (
    (r"(prompt_learner\.)?ctx", "a prompt learned by CoOp, without the CLIP it was learned for"),
    (r".*lora_[ab]\b.*|base_model\.model\..*", "low-rank factors of a fine-tuning run, without the CLIP under them"),
    (r"image_encoder\..*", "the model of a CoOp or Dassl run; save the state dict of its CLIP alone"),
    (r"(vision_model|text_model)\..*", "a model of Hugging Face transformers, whose tensors have other names"),
    (r"(img|txt)/.*|params/(img|txt)/.*", "a model of big_vision (JAX)"),
    (r"backbone_hash|start/.*", "what a method learned, for --weights"),
    (r"blocks\.\d+\.attn\.qkv\.weight", "an image tower of timm alone, without a text tower"),
    (r"layer1\.0\.conv1\.weight", "an image classifier (a ResNet), without a text tower"),
    (
        r"encoder\.layers?\.\d+\..*|embeddings\..*",
        "a model of Hugging Face transformers, whose tensors have other names",
    ),
)


def what_it_is(shapes: Shapes) -> str:
    """A clause about a state dict that is not what was asked for; "" where nothing about it is known.

    Args:
        shapes: of its tensors, by name.
    """
    fitting = fitting_architectures(shapes)
    if fitting:
        return f"by their shapes they are {' or '.join(fitting[:3])}"
    for pattern, what in OTHERS:
        if any(re.fullmatch(pattern, name) for name in shapes):
            return f"they are {what}"
    if any(name.startswith("visual.") for name in shapes) and not _text_width(shapes):
        return "they are an image tower alone, without a text tower"
    return ""


def fitting_architectures(shapes: Shapes) -> list[str]:
    """The architectures of open_clip, of those with a transformer for text, whose main shapes are these."""
    mine = _of_tensors(shapes)
    if mine is None:
        return []
    found = []
    for name, file in catalogue.architectures().items():
        if not name.endswith("-quickgelu") and _of_config(json.loads(file.read_text(encoding="utf-8"))) == mine:
            found.append(name)
    return found


def _text_width(shapes: Shapes) -> int:
    return _shape(shapes, "token_embedding.weight", "text.token_embedding.weight")[-1]


def _shape(shapes: Shapes, *names: str) -> tuple[int, ...]:
    return next((shapes[name] for name in names if shapes.get(name)), (0, 0))


def _blocks(shapes: Shapes, tower: str) -> int:
    found = [int(match[1]) for name in shapes if name.startswith(tower) and (match := BLOCK.search(name))]
    return max(found, default=-1) + 1


def _of_tensors(shapes: Shapes) -> tuple[Any, ...] | None:
    """The main shapes of both towers of a CLIP; None where there are not both."""
    table = _shape(shapes, "token_embedding.weight", "text.token_embedding.weight")
    context = _shape(shapes, "positional_embedding", "text.positional_embedding")[0]
    projection = _shape(shapes, "text_projection", "text.text_projection")[-1]
    layers = _blocks(shapes, "transformer.") or _blocks(shapes, "text.transformer.")
    text = (*table, context, layers, projection)
    conv, positions = _shape(shapes, "visual.conv1.weight"), _shape(shapes, "visual.positional_embedding")[0]
    stages = [0, 0, 0, 0]
    for name in shapes:
        if match := STAGE.fullmatch(name):
            stages[int(match[1]) - 1] = max(stages[int(match[1]) - 1], int(match[2]) + 1)
    if all(stages):
        side = round((_shape(shapes, "visual.attnpool.positional_embedding")[0] - 1) ** 0.5) * 32
        return (*text, "resnet", 2 * conv[0], tuple(stages), side)
    if not (conv[0] and positions and table[0]) or len(conv) != 4:
        return None
    return (*text, "vit", conv[0], conv[-1], _blocks(shapes, "visual."), positions - 1)


def _of_config(config: dict[str, Any]) -> tuple[Any, ...] | None:
    """The same of a config."""
    text, vision = text_shape(config, False), config["vision_cfg"]
    if not isinstance(text, TextShape):
        return None
    head = (text.vocab_size, text.blocks.width, text.context_length, text.blocks.layers, text.output)
    if isinstance(vision.get("layers"), list):
        return (*head, "resnet", vision.get("width", 64), tuple(vision["layers"]), vision.get("image_size", 224))
    image = image_shape(config, False)
    if not isinstance(image, ImageShape):
        return None
    grid = image.grid[0] * image.grid[1]
    return (*head, "vit", image.blocks.width, image.patch_size[-1], image.blocks.layers, grid)
