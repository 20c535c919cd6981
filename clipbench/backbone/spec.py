"""The name of a backbone, resolved: architecture, where its weights are, activation, preprocessing, abilities.

A name is a source (`sources.py`), optionally followed by `?image_size=112`, and by `?activation=gelu` or `quickgelu`
where only the user can know it (files); of two options `&` stands between. Nothing here imports torch or opens weights.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipbench.backbone import catalogue
from clipbench.backbone.shapes import ImageShape, OpenClipOnly, TextShape, image_shape, text_shape
from clipbench.backbone.sources import FOLDER_PREFIX, UNTAGGED, Source, find_source, known_tags, usual_tag
from clipbench.errors import BackboneError, ConfigError, LacksAbility, UnknownName

OPTIONS = ("image_size", "activation")
LARGEST_IMAGE = 2048  # pixels; positions and attention grow with its square
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
        architecture: open_clip's name, "mini", or the name of the folder or repository.
        source: "mini", "random", "untagged", "tag:TAG", "file:PATH", "folder:PATH" or "hub:ORG/NAME".
        image_size: side of the square input, pixels.
        activation: "gelu" or "quickgelu" (CLIP's switch; a tower's own variant stands in its shape).
        preprocessing: mean, std, size, interpolation.
        abilities: per tower, a subset of {"transformer", "packed", "layer_norm"}.
        config: open_clip's `model_cfg` with the activation and the image size written in.
        resized: whether the image size differs from the one of the weights.
        activation_given: whether the user has said which activation it is.
        pretrained: `ARCH/TAG` where these are known to be the published weights, used as published; else "".
        own_config: `local-dir:FOLDER` or `hf-hub:ORG/NAME` that the config is from; "" for open_clip's own.
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
    pretrained: str = field(default="", compare=False)
    own_config: str = field(default="", compare=False)

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
        ConfigError: an option with a senseless value.
        BackboneError: a folder or file that is missing or holds no usable config.

    Example:
        >>> resolve_spec("ViT-B-16/openai").activation
        'quickgelu'
    """
    bare, options = _split_options(name)
    return _assemble(name, find_source(bare), options)


def usual_name(name: str) -> str:
    """A name in its usual spelling, by which rows and overrides know it; any other name as it is.

    Example:
        >>> usual_name("ViT-B/16?image_size=112")
        'ViT-B-16/openai?image_size=112'
    """
    bare, mark, options = name.partition("?")
    return (usual_tag(bare) or bare) + mark + options


def name_in(folder: Path, name: str) -> str:
    """The name that a file in a folder states: paths in it begin there, and the spelling is the usual one.

    Args:
        folder: of the file, for example a suite.
        name: as it stands there.
    """
    if (usual := usual_name(name)) != name or name == "mini":
        return usual
    head, at, file = name.partition("@")
    if name.startswith(FOLDER_PREFIX):
        return FOLDER_PREFIX + str(folder / os.path.expanduser(name.removeprefix(FOLDER_PREFIX)))
    if at and head.replace("/", "-") in known_architectures():
        return f"{head}@{folder / os.path.expanduser(file)}"
    place = folder / os.path.expanduser(name)
    return str(place) if name.startswith((".", "~", "/")) or os.path.exists(place) else name


def refuse_untagged(spec: BackboneSpec) -> None:
    """Raise ConfigError where an architecture is named without saying which weights."""
    if spec.source == UNTAGGED:
        names = sorted(known_tags(spec.architecture), key=lambda name: not name.endswith("/openai"))
        raise ConfigError(
            f"backbone '{spec.name}' names an architecture without its weights: name one of {', '.join(names)}, or a"
            f" file, as {spec.architecture}@FILE"
        )


def _split_options(name: str) -> tuple[str, dict[str, str]]:
    """`NAME?a=1&b=2` as the bare name and its options; a question mark may also belong to a path."""
    bare, mark, tail = name.rpartition("?")
    if not mark or "/" in tail or ("=" not in tail and "." in tail):
        return name, {}
    options: dict[str, str] = {}
    for part in tail.split("&"):
        key, _, value = part.partition("=")
        if key not in OPTIONS:
            raise UnknownName("option of a backbone", key, OPTIONS)
        if key in options:
            raise ConfigError(f"backbone '{name}': {key} stands twice")
        options[key] = value
    return bare, options


def _assemble(name: str, source: Source, options: Mapping[str, str]) -> BackboneSpec:
    """Put activation, image size, preprocessing and abilities together."""
    config: dict[str, Any] = json.loads(json.dumps(source.config))
    entry = source.entry
    quick = bool((entry if source.pretrained else config).get("quick_gelu", False))
    if "activation" in options:
        if options["activation"] not in ("gelu", "quickgelu"):
            raise UnknownName("activation", options["activation"], ["gelu", "quickgelu"])
        if source.pretrained and (options["activation"] == "quickgelu") != quick:
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
    image_size = _image_size(name, config, options["image_size"], quick) if "image_size" in options else native
    config["vision_cfg"]["image_size"] = image_size
    image, text = image_shape(config, quick), text_shape(config, quick)
    _refuse_impossible(name, image, text)
    return BackboneSpec(
        name=name,
        architecture=source.architecture,
        source=source.where,
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
        pretrained=source.pretrained if image_size == native else "",
        own_config=source.own_config,
    )


def _image_size(name: str, config: dict[str, Any], value: str, quick: bool) -> int:
    """The image size that the user wants.

    Raises:
        ConfigError: it is not a number of pixels that the image tower can take.
        BackboneError: the tower takes one size only.
    """
    shape = image_shape(config, quick)
    patch = shape.patch_size[0] if isinstance(shape, ImageShape) else 1
    largest = LARGEST_IMAGE - LARGEST_IMAGE % patch
    number = int(value) if re.fullmatch(r"[0-9]{1,9}", value) else 0
    if not 1 <= number <= LARGEST_IMAGE or number % patch:
        steps = f", a multiple of the patch of {patch} pixels" if patch > 1 else ""
        raise ConfigError(
            f"backbone '{name}': image_size is '{value}', but must be a number of pixels from {patch} to"
            f" {largest}{steps}, for example {max(patch, 112 - 112 % patch)}"
        )
    native = config["vision_cfg"].get("image_size", 224)
    if isinstance(config["vision_cfg"].get("layers"), list) and number not in (native, [native]):
        raise BackboneError(f"backbone '{name}': the attention pool of a ResNet fixes the input at {native} pixels")
    return number


def _refuse_impossible(name: str, *shapes: ImageShape | TextShape | OpenClipOnly) -> None:
    """Raise BackboneError for a transformer that cannot be, as a config of one's own may describe."""
    for shape in shapes:
        if isinstance(shape, OpenClipOnly):
            continue
        blocks = shape.blocks
        if blocks.heads < 1 or blocks.width % blocks.heads:
            raise BackboneError(f"backbone '{name}': a width of {blocks.width} is not divided by {blocks.heads} heads")
        if isinstance(shape, ImageShape) and 0 in shape.grid:
            raise BackboneError(
                f"backbone '{name}': {shape.image_size[0]} pixels are less than one patch of {shape.patch_size[0]}"
            )


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
        LacksAbility: names the method, the tower, the ability and why the tower lacks it.
    """
    for tower in ("image", "text"):
        missing = sorted(set(needs.get(tower, ())) - spec.abilities[tower])
        if not missing:
            continue
        shape = spec.image_shape if tower == "image" else spec.text_shape
        reason = shape.reason if isinstance(shape, OpenClipOnly) else "it is of another kind"
        wants = " and ".join(MEANING.get(ability, f"'{ability}'") for ability in missing)
        raise LacksAbility(
            f"{who} needs {wants} in the {tower} tower, which that of backbone '{spec.name}' does not have: {reason};"
            " a ViT of open_clip with the class CLIP has them, for example 'ViT-B-16/openai'"
        )
