"""Deep prompts: learned tokens in a tower from its input on, with others in their place before deeper blocks.

Prompts of depth J are P_1 .. P_J, each of n tokens. P_1 enters the tower; before block i = 2 .. J the n positions are
overwritten by P_i; what has become of P_J runs through the blocks above (Jia et al., ECCV 2022, "deep"; in both towers:
Khattak et al., CVPR 2023, section 3). Depth 1 is "shallow".

- Text: positions 1 .. n, after the start of text. P_1 is a `Context`, vectors in place of the first n initial words;
  further words stay as they are. All classes share these positions, so the shared prefix is still computed once.
- Image: the last n positions, without positional embedding. P_1 goes through `ln_pre`, as all that enters the tower;
  deeper ones do not. Where features are an average over patches, prompts are not averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clipbench.backbone.image import ImageTower
from clipbench.backbone.model import Backbone
from clipbench.backbone.tokens import Hook, Tokens
from clipbench.errors import ConfigError
from clipbench.randomness import torch_generator
from clipbench.tuning.class_prompts import ClassPrompts
from clipbench.tuning.context import Context

START = 1  # positions of a text before the prompts: the start of text


def from_noise(depth: int, length: int, width: int, generator: torch.Generator) -> list[Tensor]:
    """Prompts of `depth` blocks, each (length, width): normal with standard deviation 0.02."""
    return [0.02 * torch.randn((length, width), generator=generator) for _ in range(depth)]


def refuse_senseless(method: str, **settings: int) -> None:
    """Raise ConfigError for depths and numbers of tokens below 1, by their names."""
    for name, value in settings.items():
        if value < 1:
            raise ConfigError(f"{name} of {method} must be 1 or more, it is {value}")


def refuse_too_deep(method: str, backbone: Backbone, tower: str, **depth: int) -> None:
    """Raise ConfigError where prompts are to stand before blocks that a tower does not have.

    Args:
        method: whose setting it is.
        backbone: whose tower.
        tower: "image" or "text".
        depth: the setting, by its name.
    """
    blocks = len(getattr(backbone, tower).blocks)
    for name, value in depth.items():
        if value > blocks:
            raise ConfigError(
                f"{name} of {method} is {value}, but the {tower} tower of '{backbone.spec.name}' has {blocks} blocks: "
                f"{name} is at most {blocks} there"
            )


def encode_image(backbone: Backbone, images: Tensor, prompts: Sequence[Tensor]) -> Tensor:
    """Features (B, D) of images with prompts at the end of their tokens.

    Args:
        backbone: its image tower is a transformer of ours.
        images: (B, 3, H, W), normalised.
        prompts: P_1 .. P_J, each (n, W), of the image tower's width.
    """
    tower = backbone.image
    assert isinstance(tower, ImageTower)

    def append(tokens: Tokens) -> Tokens:
        first = prompts[0] if tower.ln_pre is None else tower.ln_pre(prompts[0])
        return tokens.insert(tokens.rows.shape[1], first)

    def overwrite(values: Tensor) -> Hook:
        return lambda tokens: tokens.replace(tokens.rows.shape[1] - len(values), values)

    hooks = {0: append} | {number: overwrite(values) for number, values in enumerate(prompts[1:], start=1)}
    return backbone.encode_image(images, before_block=hooks)


class ImagePrompts(nn.Module):
    """Prompts of the image tower.

    Args:
        prompts: start values of P_1 .. P_J, each (n, W).
    """

    def __init__(self, prompts: Sequence[Tensor]) -> None:
        super().__init__()
        self.prompts = nn.ParameterList(nn.Parameter(values.clone().float()) for values in prompts)

    def features(self, backbone: Backbone, images: Tensor) -> Tensor:
        """Features (B, D) of images (B, 3, H, W)."""
        return encode_image(backbone, images, list(self.prompts))


class TextPrompts(nn.Module):
    """Prompts of the text tower.

    Args:
        context: P_1.
        deeper: start values of P_2 .. P_J, each (n, W).
    """

    def __init__(self, context: Context, deeper: Sequence[Tensor]) -> None:
        super().__init__()
        self.context = context
        self.deeper = nn.ParameterList(nn.Parameter(values.clone().float()) for values in deeper)

    @classmethod
    def begin(
        cls, backbone: Backbone, words: str, length: int, depth: int, generator: torch.Generator
    ) -> TextPrompts:  # fmt: skip
        """Prompts as they begin: P_1 from the first `length` tokens of the words, all others from noise.

        Args:
            backbone: a method's view.
            words: initial words; empty: P_1 from noise, and nothing between it and the class name.
            length: n.
            depth: J.
            generator: of the noise.

        Raises:
            ConfigError: more vectors than tokens to start from.
        """
        noise = from_noise(depth if not words.strip() else depth - 1, length, backbone.text_width, generator)
        if not words.strip():
            return cls(Context(noise[0]), noise[1:])
        known = Context.from_words(backbone, words)
        if length > len(known):
            raise ConfigError(
                f"{length} context vectors cannot start from '{words}', which has {len(known)} tokens: give as many, "
                "or no words"
            )
        (ids,) = backbone.tokenize([words])
        return cls(Context(known[:length], followed_by=ids[1 + length : -1]), noise)

    def all(self) -> list[Tensor]:
        """P_1 .. P_J, each (n, W)."""
        return [self.context.vectors, *self.deeper]

    def features(self, prompts: ClassPrompts, classnames: Sequence[str]) -> Tensor:
        """Features (C, D) of class names.

        Args:
            prompts: those of the method, which keep the plan and know the view.
            classnames: of C classes.
        """

        def overwrite(values: Tensor) -> Hook:
            return lambda tokens: tokens.replace(START, values)

        hooks = {number: overwrite(values) for number, values in enumerate(self.deeper, start=1)}
        plan = self.context.kept_plan(prompts, classnames)
        return prompts.backbone.encode_text(plan, extra=self.context.rows(), before_block=hooks)


@dataclass(frozen=True)
class IndependentPrompts:
    """How prompts of both towers that know nothing of each other begin (IVLP).

    Args:
        method: whose settings these are.
        context_words: the first text prompt starts from their first tokens, others stay as they are; empty: noise.
        n_text_prompts: tokens of each text prompt.
        n_image_prompts: tokens of each image prompt.
        text_depth: how many blocks of the text tower have prompts of their own, from the input on.
        image_depth: how many of the image tower.

    Raises:
        ConfigError: a number below 1.
    """

    method: str
    context_words: str
    n_text_prompts: int
    n_image_prompts: int
    text_depth: int
    image_depth: int

    def __post_init__(self) -> None:
        tokens = {"n_text_prompts": self.n_text_prompts, "n_image_prompts": self.n_image_prompts}
        refuse_senseless(self.method, **tokens, text_depth=self.text_depth, image_depth=self.image_depth)

    def begin(self, backbone: Backbone, seed: int) -> tuple[TextPrompts, ImagePrompts]:
        """The prompts of the text and of the image tower.

        Args:
            backbone: a method's view.
            seed: of the noise.

        Raises:
            ConfigError: a depth beyond the blocks of a tower, or more vectors than tokens to start from.
        """
        refuse_too_deep(self.method, backbone, "text", text_depth=self.text_depth)
        refuse_too_deep(self.method, backbone, "image", image_depth=self.image_depth)
        of_text, of_image = (torch_generator(seed, "init", f"{tower} prompts") for tower in ("text", "image"))
        text = TextPrompts.begin(backbone, self.context_words, self.n_text_prompts, self.text_depth, of_text)
        image = from_noise(self.image_depth, self.n_image_prompts, backbone.image_width, of_image)
        return text, ImagePrompts(image)

    def count(self, backbone: Backbone) -> int:
        """Depth x tokens x width, of either tower."""
        text = self.text_depth * self.n_text_prompts * backbone.text_width
        return text + self.image_depth * self.n_image_prompts * backbone.image_width
