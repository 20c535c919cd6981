"""In which parts images are encoded: golden values and records hold only for these sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from clipbench.backbone.chunks import chunk_sizes
from clipbench.backbone.clip import load_backbone
from clipbench.backbone.spec import resolve_spec

SIZES = [
    ("mini", 400, [174, 174, 52], [174, 174, 52]),
    ("ViT-B-16/random", 20, [8, 8, 4], [8, 8, 4]),
    ("ViT-B-32/random", 20, [8, 8, 4], [8, 8, 4]),
    ("ViT-B-16-plus-240/random", 15, [6, 1, 6, 1, 1], [7, 7, 1]),
    ("ViT-L-14/random", 20, [4, 4, 4, 4, 4], [8, 8, 4]),
    ("ViT-L-14-336/random", 6, [2, 2, 2], [4, 2]),
    ("ViT-H-14/random", 20, [3, 3, 2, 3, 3, 2, 3, 1], [8, 8, 4]),
    ("ViT-H-14-378/random", 4, [1, 1, 1, 1], [3, 1]),
    # towers of timm and ResNets: by pixels alone
    ("MobileCLIP-S1/random", 20, [6, 6, 6, 2], [6, 6, 6, 2]),
    ("EVA02-L-14-336/random", 6, [4, 2], [4, 2]),
    ("RN50x64/random", 5, [2, 2, 1], [2, 2, 1]),
]


@pytest.mark.parametrize(("name", "count", "parts", "hooked"), SIZES, ids=[name for name, *_ in SIZES])
def test_sizes(name: str, count: int, parts: list[int], hooked: list[int]) -> None:
    spec = resolve_spec(name)
    assert chunk_sizes(count, spec) == parts
    assert chunk_sizes(count, spec, hooked=True) == hooked


def test_sizes_of_a_small_transformer_of_a_folder(tmp_path: Path) -> None:
    vision = {"image_size": 224, "patch_size": 14, "width": 384, "layers": 12, "head_width": 64}
    text = {"context_length": 77, "vocab_size": 49408, "width": 384, "heads": 6, "layers": 12}
    config = {"model_cfg": {"embed_dim": 384, "vision_cfg": vision, "text_cfg": text}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    assert chunk_sizes(20, resolve_spec(f"local-dir:{tmp_path}")) == [8, 8, 4]


def test_no_images_are_one_empty_part() -> None:
    assert chunk_sizes(0, resolve_spec("mini")) == [0]


@pytest.mark.parametrize("grad", [False, True], ids=["without gradient", "frozen, with gradient at hand"])
def test_a_frozen_tower_sees_these_parts(grad: bool) -> None:
    view = load_backbone("mini").view()
    seen: list[int] = []
    view.image.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    pixels = torch.rand(200, 3, 48, 48)
    with torch.set_grad_enabled(grad):
        assert view.encode_image(pixels).shape == (200, view.embed_dim)
        assert view.encode_image(pixels[:3]).shape == (3, view.embed_dim)
    assert seen == [174, 26, 3]


def test_a_tower_that_trains_sees_all_images_at_once() -> None:
    view = load_backbone("mini").view()
    view.unfreeze(["image.ln_post.weight"])
    seen: list[int] = []
    view.image.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    view.encode_image(torch.rand(200, 3, 48, 48))
    with torch.no_grad():
        view.encode_image(torch.rand(200, 3, 48, 48))
    assert seen == [200, 174, 26]
