"""Which transformer an open_clip `model_cfg` describes, or why its tower must stay open_clip's own module.

A shape is plain data (no torch), so that abilities and counts are known before anything is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

CUSTOM_BLOCK = ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc")
# Families of timm whose blocks hold LayerNorms; its ResNets, EfficientNets and smaller FastViTs have batch norm.
TIMM_WITH_LAYER_NORM = (
    *("vit_", "vitamin_", "naflexvit_", "convnext", "swin", "eva", "beit", "deit"),
    *("fastvit_mci3", "fastvit_mci4", "test_vit", "test_convnext"),
)


@dataclass(frozen=True)
class BlockShape:
    """What all blocks of one tower share."""

    width: int
    layers: int
    heads: int
    mlp_width: int
    activation: str
    eps: float
    layer_scale: bool


@dataclass(frozen=True)
class ImageShape:
    """A vision transformer with a class token."""

    blocks: BlockShape
    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    ln_pre: bool
    pool: str
    norm_after_pool: bool
    output: int

    @property
    def grid(self) -> tuple[int, int]:
        """Patches in height and width."""
        return self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1]


@dataclass(frozen=True)
class TextShape:
    """A text transformer; `packed` says whether cutting at the end-of-text token and packing is exact."""

    blocks: BlockShape
    context_length: int
    vocab_size: int
    causal: bool
    pool: str
    end_of_text: int
    pad: int
    projection: bool
    projection_bias: bool
    output: int

    @property
    def packed(self) -> bool:
        """Whether positions after the end of text cannot matter: causal, and pooled at the end of text."""
        return self.causal and self.pool in ("argmax", "eos")


@dataclass(frozen=True)
class OpenClipOnly:
    """A tower of another shape, with the reason in words."""

    reason: str
    layer_norm: bool


def _pair(value: Any) -> tuple[int, int]:
    return (int(value[0]), int(value[1])) if isinstance(value, (list, tuple)) else (int(value), int(value))


def _activation(config: dict[str, Any], quick_gelu: bool) -> str:
    if quick_gelu:
        return "quickgelu"
    return "gelu_tanh" if (config.get("act_kwargs") or {}).get("approximate") == "tanh" else "gelu"


def _block_misfit(config: dict[str, Any]) -> str | None:
    """Why the blocks of a tower are not ours, or None."""
    odd = [key for key in CUSTOM_BLOCK if config.get(key)]
    if config.get("block_type") not in (None, "default") or odd:
        return f"its blocks are custom ({', '.join(odd) or 'block_type'})"
    unknown = set(config.get("norm_kwargs") or {}) - {"eps"} | set(config.get("act_kwargs") or {}) - {"approximate"}
    return f"its norm or activation takes {', '.join(sorted(unknown))}" if unknown else None


def _blocks(config: dict[str, Any], width: int, layers: int, heads: int, quick_gelu: bool) -> BlockShape:
    return BlockShape(
        width=width,
        layers=layers,
        heads=heads,
        mlp_width=int(width * config.get("mlp_ratio", 4.0)),
        activation=_activation(config, quick_gelu),
        eps=float((config.get("norm_kwargs") or {}).get("eps", 1e-5)),
        layer_scale=config.get("ls_init_value") is not None,
    )


def image_shape(model_config: dict[str, Any], quick_gelu: bool) -> ImageShape | OpenClipOnly:
    """The image tower that a `model_cfg` describes.

    Returns:
        An `ImageShape` where the tower is the one transformer that we know, else `OpenClipOnly` with the reason.
    """
    config = model_config["vision_cfg"]
    if config.get("timm_model_name"):
        name = str(config["timm_model_name"])
        return OpenClipOnly(f"it is timm's {name}", name.lower().startswith(TIMM_WITH_LAYER_NORM))
    if isinstance(config.get("layers"), (list, tuple)):
        return OpenClipOnly("it is a ResNet", layer_norm=False)
    if config.get("attentional_pool"):
        return OpenClipOnly("it is pooled by attention", layer_norm=True)
    misfit = _block_misfit(config)
    if config.get("pool_type", "tok") not in ("tok", "avg"):
        misfit = f"its pooling is '{config['pool_type']}'"
    if misfit:
        return OpenClipOnly(misfit, layer_norm=True)
    width = config.get("width", 768)
    return ImageShape(
        blocks=_blocks(config, width, config.get("layers", 12), width // config.get("head_width", 64), quick_gelu),
        image_size=_pair(config.get("image_size", 224)),
        patch_size=_pair(config.get("patch_size", 16)),
        ln_pre=not config.get("no_ln_pre", False),
        pool=config.get("pool_type", "tok"),
        norm_after_pool=bool(config.get("final_ln_after_pool", False)),
        output=model_config["embed_dim"],
    )


def text_shape(model_config: dict[str, Any], quick_gelu: bool) -> TextShape | OpenClipOnly:
    """The text tower that a `model_cfg` describes.

    Returns:
        A `TextShape` where the tower is the one transformer that we know, else `OpenClipOnly` with the reason.
    """
    config = model_config["text_cfg"]
    if config.get("hf_model_name"):
        name = str(config["hf_model_name"])
        return OpenClipOnly(f"it is Hugging Face's {name}", layer_norm="t5" not in name)
    if config.get("embed_cls"):
        return OpenClipOnly("it appends a class token (CoCa)", layer_norm=True)
    misfit = _block_misfit(config)
    pool = config.get("pool_type", "argmax")
    if pool not in ("argmax", "eos", "first", "last"):
        misfit = f"its pooling is '{pool}'"
    if misfit:
        return OpenClipOnly(misfit, layer_norm=True)
    vocabulary = config.get("vocab_size", 49408)
    return TextShape(
        blocks=_blocks(config, config.get("width", 512), config.get("layers", 12), config.get("heads", 8), quick_gelu),
        context_length=config.get("context_length", 77),
        vocab_size=vocabulary,
        causal=not config.get("no_causal_mask", False),
        pool=pool,
        end_of_text=config.get("eos_id", 2) if pool == "eos" else vocabulary - 1,
        pad=config.get("pad_id", 0),
        projection=config.get("proj_type", "linear") != "none",
        projection_bias=bool(config.get("proj_bias", False)),
        output=model_config["embed_dim"],
    )
