"""The name of a backbone, resolved: architecture, where its weights are, activation, preprocessing, abilities.

Syntax of a name: `mini` | `ARCH/TAG` (open_clip) | `ARCH/random` | `ARCH@FILE` | `local-dir:FOLDER`, each optionally
followed by `?image_size=112`, and by `?activation=gelu` or `quickgelu` where only the user can know it (files).
Nothing here imports torch or opens a weights file.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipbench.backbone import catalogue
from clipbench.backbone.shapes import ImageShape, OpenClipOnly, TextShape, image_shape, text_shape
from clipbench.errors import BackboneError, ConfigError, UnknownName

CONFIG_FILE = "open_clip_config.json"
OPTIONS = ("image_size", "activation")
MEANING = {
    "transformer": "explicit transformer blocks",
    "packed": "a causal transformer pooled at the end-of-text token",
    "layer_norm": "LayerNorms",
}


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the input of the image tower; comes with the weights.

    Attributes:
        size: side of the square input, pixels.
        mean: per channel, of pixels in [0, 1].
        std: per channel, of pixels in [0, 1].
        interpolation: "bicubic", "bilinear" ...
        resize_mode: "shortest" (then centre crop), "squash" or "longest".
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    resize_mode: str


@dataclass(frozen=True)
class BackboneSpec:
    """Everything about a backbone that is known before its weights are opened.

    Attributes:
        name: as the user wrote it.
        architecture: open_clip's name, "mini", or the folder's name.
        source: "mini", "random", "tag:TAG", "file:PATH" or "folder:PATH".
        image_size: side of the square input, pixels.
        activation: "gelu" or "quickgelu" (CLIP's switch; a tower's own variant stands in its shape).
        preprocessing: mean, std, size, interpolation.
        abilities: per tower, a subset of {"transformer", "packed", "layer_norm"}.
        config: open_clip's `model_cfg` with the activation and the image size written in.
        resized: whether the image size differs from the one of the weights.
    """

    name: str
    architecture: str
    source: str
    image_size: int
    activation: str
    preprocessing: Preprocessing
    abilities: Mapping[str, frozenset[str]]
    config: Mapping[str, Any] = field(repr=False, compare=False)
    resized: bool = False
    activation_given: bool = field(default=False, repr=False)

    @property
    def image_shape(self) -> ImageShape | OpenClipOnly:
        """Shape of the image tower, or why it stays open_clip's module."""
        return image_shape(dict(self.config), self.activation == "quickgelu")

    @property
    def text_shape(self) -> TextShape | OpenClipOnly:
        """Shape of the text tower, or why it stays open_clip's module."""
        return text_shape(dict(self.config), self.activation == "quickgelu")


def known_architectures() -> tuple[str, ...]:
    """Names of all open_clip architectures, sorted."""
    return tuple(catalogue.architectures())


def resolve_spec(name: str) -> BackboneSpec:
    """Resolve the name of a backbone from JSON files only.

    Args:
        name: see the top of this file.

    Returns:
        The spec; its weights may be absent.

    Raises:
        UnknownName: no such architecture, tag or option; the nearest is suggested.
        BackboneError: a folder or file that is missing or holds no usable config.

    Example:
        >>> resolve_spec("ViT-B-16/openai").activation
        'quickgelu'
    """
    bare, options = _split_options(name)
    if bare == "mini":
        architecture, source, config, entry = _mini()
    elif bare.startswith("local-dir:"):
        architecture, source, config, entry = _folder(bare.removeprefix("local-dir:"))
    elif "@" in bare:
        architecture, _, file = bare.partition("@")
        architecture = _architecture(architecture, name)
        if not Path(file).is_file():
            raise BackboneError(f"backbone '{name}': there is no checkpoint file '{file}'")
        source, config, entry = f"file:{file}", catalogue.model_config(architecture), {}
    else:
        architecture, source, config, entry = _tag(bare)
    return _assemble(name, architecture, source, config, entry, options)


def _split_options(name: str) -> tuple[str, dict[str, str]]:
    """`NAME?a=1&b=2` as the bare name and its options."""
    bare, mark, tail = name.rpartition("?")
    if not mark or "=" not in tail or "/" in tail:
        return name, {}
    options = {}
    for part in tail.split("&"):
        key, _, value = part.partition("=")
        if key not in OPTIONS:
            raise UnknownName("option of a backbone", key, OPTIONS)
        options[key] = value
    return bare, options


def _architecture(name: str, whole: str) -> str:
    """An open_clip architecture; OpenAI's spelling `ViT-B/16` is understood."""
    spelled = name.replace("/", "-")
    if spelled not in catalogue.architectures():
        raise UnknownName("architecture of a backbone", name, known_architectures())
    return spelled


def _tag(bare: str) -> tuple[str, str, dict[str, Any], dict[str, Any]]:
    """`ARCH/TAG` or `ARCH/random`."""
    architecture, _, tag = bare.rpartition("/")
    if not architecture and bare not in catalogue.architectures():
        raise UnknownName("backbone", bare, ["mini", *known_architectures()])
    if not architecture or (bare.replace("/", "-") in catalogue.architectures()):
        spelled = _architecture(bare, bare)
        known = [*catalogue.pretrained_tags().get(spelled, {}), "random"]
        raise UnknownName("backbone", bare, [f"{spelled}/{tag}" for tag in known])
    architecture = _architecture(architecture, bare)
    if tag == "random":
        return architecture, "random", catalogue.model_config(architecture), {}
    tags = catalogue.pretrained_tags().get(architecture, {})
    if catalogue.clean_tag(tag) not in tags:
        raise UnknownName(f"pretrained tag of {architecture}", tag, [*tags, "random"])
    entry = tags[catalogue.clean_tag(tag)]
    return architecture, f"tag:{catalogue.clean_tag(tag)}", catalogue.model_config(architecture), entry


def _folder(folder: str) -> tuple[str, str, dict[str, Any], dict[str, Any]]:
    """`local-dir:FOLDER` with open_clip's config file."""
    path = Path(folder).expanduser()
    file = path / CONFIG_FILE
    if not file.is_file():
        what = "has no" if path.is_dir() else "does not exist; it would hold"
        raise BackboneError(f"backbone 'local-dir:{folder}': the folder {what} {CONFIG_FILE} and the weights beside it")
    try:
        whole = json.loads(file.read_text())
        config = whole["model_cfg"]
        if not {"embed_dim", "vision_cfg", "text_cfg"} <= set(config):
            raise KeyError("embed_dim, vision_cfg, text_cfg")
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise BackboneError(f"{file} is not an open_clip config ({type(error).__name__}: {error})") from error
    return path.resolve().name, f"folder:{path}", config, whole.get("preprocess_cfg") or {}


def _mini() -> tuple[str, str, dict[str, Any], dict[str, Any]]:
    """The embedded backbone."""
    from clipbench.mini import weights

    return "mini", "mini", weights.MODEL_CFG, weights.PREPROCESS_CFG


def _assemble(
    name: str,
    architecture: str,
    source: str,
    config: dict[str, Any],
    entry: Mapping[str, Any],
    options: Mapping[str, str],
) -> BackboneSpec:
    """Put activation, image size, preprocessing and abilities together."""
    config = json.loads(json.dumps(config))
    quick = bool(entry.get("quick_gelu", False)) if source.startswith("tag:") else bool(config.get("quick_gelu", False))
    if "activation" in options:
        if options["activation"] not in ("gelu", "quickgelu"):
            raise UnknownName("activation", options["activation"], ["gelu", "quickgelu"])
        if source.startswith("tag:") and (options["activation"] == "quickgelu") != quick:
            right = "quickgelu" if quick else "gelu"
            raise ConfigError(f"backbone '{name}': these weights were trained with {right}; leave out '?activation='")
        quick = options["activation"] == "quickgelu"
    config["quick_gelu"] = quick
    size = config["vision_cfg"].get("image_size", 224)
    native = size[0] if isinstance(size, list) else size
    if isinstance(size, list) and size[0] != size[1]:
        raise BackboneError(
            f"backbone '{name}': the input is {size[0]}x{size[1]} pixels, and only squares are supported"
        )
    image_size = _positive(name, options.get("image_size", native))
    config["vision_cfg"]["image_size"] = image_size
    image, text = image_shape(config, quick), text_shape(config, quick)
    if image_size != native and isinstance(config["vision_cfg"].get("layers"), list):
        raise BackboneError(f"backbone '{name}': the attention pool of a ResNet fixes the input at {native} pixels")
    if isinstance(image, ImageShape) and 0 in image.grid:
        raise BackboneError(f"backbone '{name}': {image_size} pixels are less than one patch of {image.patch_size[0]}")
    return BackboneSpec(
        name=name,
        architecture=architecture,
        source=source,
        image_size=image_size,
        activation="quickgelu" if quick else "gelu",
        preprocessing=Preprocessing(
            size=image_size,
            mean=_triple(entry.get("mean") or catalogue.DEFAULT_MEAN),
            std=_triple(entry.get("std") or catalogue.DEFAULT_STD),
            interpolation=entry.get("interpolation") or "bicubic",
            resize_mode=entry.get("resize_mode") or "shortest",
        ),
        abilities={"image": _abilities(image), "text": _abilities(text)},
        config=config,
        resized=image_size != native,
        activation_given="activation" in options,
    )


def _positive(name: str, value: str | int) -> int:
    """A number of pixels."""
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise ConfigError(f"backbone '{name}': image_size is '{value}', but must be a number of pixels such as 112")
    return number


def _triple(values: Collection[float]) -> tuple[float, float, float]:
    """Three channel values."""
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _abilities(shape: ImageShape | TextShape | OpenClipOnly) -> frozenset[str]:
    """What can be done to a tower."""
    if isinstance(shape, OpenClipOnly):
        return frozenset({"layer_norm"} if shape.layer_norm else ())
    packed = {"packed"} if isinstance(shape, TextShape) and shape.packed else set()
    return frozenset({"transformer", "layer_norm"} | packed)


def require(spec: BackboneSpec, needs: Mapping[str, Collection[str]], who: str) -> None:
    """Refuse a backbone that lacks an ability, before anything is loaded.

    Args:
        spec: the backbone.
        needs: tower ("image", "text") -> abilities.
        who: the method that needs them.

    Raises:
        BackboneError: names the method, the tower, the ability and why the tower lacks it.
    """
    for tower in ("image", "text"):
        missing = sorted(set(needs.get(tower, ())) - spec.abilities[tower])
        if not missing:
            continue
        shape = spec.image_shape if tower == "image" else spec.text_shape
        reason = shape.reason if isinstance(shape, OpenClipOnly) else "it is of another kind"
        wants = " and ".join(MEANING.get(ability, f"'{ability}'") for ability in missing)
        raise BackboneError(
            f"{who} needs {wants} in the {tower} tower, which that of backbone '{spec.name}' does not have: {reason};"
            " a ViT of open_clip with the class CLIP has them, for example 'ViT-B-16/openai'"
        )
