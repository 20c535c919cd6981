"""The backbone as an object: two towers and a logit scale, frozen, in eval mode, never written to once it is loaded.

A method takes a `view()`: a copy of the structure on the same storage, in which tensors become trainable and Linears
are replaced (`view.py`). The backbone itself stays what was loaded, so it is the frozen twin that teachers use.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipbench.backbone import hashing, open_clip_towers, weights
from clipbench.backbone.chunks import chunk_sizes
from clipbench.backbone.image import ImageTower
from clipbench.backbone.prompts import PromptPlan
from clipbench.backbone.shapes import OpenClipOnly
from clipbench.backbone.spec import BackboneSpec
from clipbench.backbone.text import TextTower
from clipbench.backbone.tokenizer import Tokenizer
from clipbench.backbone.tokens import Hooks
from clipbench.errors import BackboneError

if TYPE_CHECKING:
    from clipbench.backbone.view import BackboneView

INITIAL_LOG_SCALE = 2.6592600369327783  # log(1 / 0.07), open_clip's start


class Backbone(nn.Module):
    """A frozen CLIP.

    Args:
        spec: what it is.
        image: the image tower.
        text: the text tower.
        has_logit_bias: whether logits have a bias (SigLIP).

    Attributes:
        spec: what it is.
        hash: SHA-256 of the loaded tensors; empty for one without weights.
        image: image tower, `ImageTower` or open_clip's own.
        text: text tower, `TextTower` or open_clip's own.
        logit_scale: logarithm of the scale.
        logit_bias: added to logits, or None.
    """

    _mean: Tensor
    _std: Tensor

    def __init__(
        self,
        spec: BackboneSpec,
        image: ImageTower | open_clip_towers.OpenClipImageTower,
        text: TextTower | open_clip_towers.OpenClipTextTower,
        has_logit_bias: bool = False,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.hash = ""
        self.image = image
        self.text = text
        self.logit_scale = nn.Parameter(torch.tensor(INITIAL_LOG_SCALE))
        self.logit_bias = nn.Parameter(torch.tensor(0.0)) if has_logit_bias else None
        mean, std = torch.tensor(spec.preprocessing.mean), torch.tensor(spec.preprocessing.std)
        self.register_buffer("_mean", mean.view(-1, 1, 1), persistent=False)
        self.register_buffer("_std", std.view(-1, 1, 1), persistent=False)
        self._tokenizer: Tokenizer | None = None
        self._known: Collection[int] | None = None
        self._shared = False
        self._copies: dict[tuple[torch.device, torch.dtype], Backbone] = {}
        self.requires_grad_(False)
        self.eval()

    # A loaded backbone is shared and immutable; what methods change are views of it

    def view(self) -> BackboneView:
        """A copy of the structure that shares every tensor, for one method to train and change."""
        from clipbench.backbone.view import BackboneView

        return BackboneView(self)

    def share(self) -> None:
        """From here on every conversion and every loading of other tensors is refused."""
        self._shared = True

    def twin(self, device: torch.device, dtype: torch.dtype) -> Backbone:
        """This backbone on a device in a floating dtype: itself, or a copy that is made once and serves all views."""
        mine = self.logit_scale
        if (mine.device, mine.dtype) == (device, dtype):
            return self
        if (device, dtype) not in self._copies:
            memo: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in self.parameters()}
            memo |= {id(shared): shared for shared in (self.spec, self._tokenizer, self._known, self._copies)}
            other = copy.deepcopy(self, memo)
            other._shared = False
            self._copies[device, dtype] = other.to(device=device, dtype=dtype)
            self._copies[device, dtype].share()
        return self._copies[device, dtype]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Backbone:
        """Every conversion (`to`, `half`, `cuda` ...) comes through here."""
        if self._shared:
            raise BackboneError(
                f"backbone '{self.spec.name}' is shared by the process and stays as it was loaded; convert a `view()`"
            )
        super()._apply(fn, recurse)
        return self

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """As in torch, until the backbone is shared."""
        if self._shared:
            raise BackboneError(
                f"backbone '{self.spec.name}' is shared by the process and stays as it was loaded: other values are put"
                " into a `view()`, by its replace_tensors"
            )
        return super().load_state_dict(*args, **kwargs)

    def train(self, mode: bool = True) -> Backbone:
        """Frozen modules stay in eval mode, whatever is asked for."""
        super().train(False)
        return self

    def size(self) -> int:
        """How many parameters it has."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def embed_dim(self) -> int:
        """Joint dimension D."""
        return int(self.spec.config["embed_dim"])

    @property
    def vocab_size(self) -> int:
        """Number of token ids; ids from here on are rows of `extra`."""
        return int(self.spec.config["text_cfg"].get("vocab_size", 49408))

    @property
    def text_width(self) -> int:
        """Width of the text tower, the length of a learned context vector."""
        return int(self.spec.config["text_cfg"].get("width", 512))

    @property
    def image_width(self) -> int:
        """Width of the image tower, where it is a transformer of ours."""
        return int(self.spec.config["vision_cfg"].get("width", 768))

    @property
    def text_layers(self) -> int:
        """Number of blocks of the text tower."""
        return int(self.spec.config["text_cfg"].get("layers", 12))

    def normalise(self, images: Tensor) -> Tensor:
        """Pixels as the image tower wants them, bit-equal to torchvision's ToTensor and Normalize.

        Args:
            images: (B, 3, H, W) uint8.

        Returns:
            (B, 3, H, W) float32: x / 255, minus mean, over std.
        """
        x = images.to(torch.float32, copy=True).div_(255)
        return x.sub_(self._mean.to(x)).div_(self._std.to(x))

    def encode_image(
        self, images: Tensor, before_block: Hooks | None = None, after_block: Hooks | None = None
    ) -> Tensor:
        """Features of images.

        Args:
            images: (B, 3, H, W) normalised pixels.
            before_block: block number -> hook on what enters it (`tokens.py`).
            after_block: block number -> hook on what leaves it.

        Returns:
            (B, D), not normalised.

        Raises:
            BackboneError: images of another size, or hooks on a tower of open_clip's own.
        """
        learns = images.requires_grad or any(tensor.requires_grad for tensor in self.image.parameters())
        if (torch.is_grad_enabled() and (learns or before_block or after_block)) or images.device.type != "cpu":
            features: Tensor = self.image(images, before_block, after_block)
            return features
        parts = images.split(chunk_sizes(len(images), self.spec, hooked=bool(before_block or after_block)))
        with torch.no_grad():
            return torch.cat([self.image(part, before_block, after_block) for part in parts])

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of prompts, start of text to end of text.

        Raises:
            BackboneError: a prompt is too long, or has a word that the embedded backbone does not know.
        """
        if self._tokenizer is None:
            shape = self.spec.text_shape
            end = shape.end_of_text if not isinstance(shape, OpenClipOnly) and shape.packed else None
            self._tokenizer = Tokenizer(self.spec, end, self._known)
        for backbone in (self, *self._copies.values()):
            backbone.text.pad = self._tokenizer.pad
        return self._tokenizer(texts)

    def encode_text(
        self,
        plan: PromptPlan,
        extra: Tensor | None = None,
        before_block: Hooks | None = None,
        after_block: Hooks | None = None,
    ) -> Tensor:
        """Features of classes.

        The prefix that all classes share is computed once, unless a hook is marked per class or a module that
        replaces a Linear draws noise.

        Args:
            plan: prompts of C classes.
            extra: (E, W) rows for ids at or above `vocab_size`; (B, E, W): rows of each of B images.
            before_block: block number -> hook on what enters it (`tokens.py`).
            after_block: block number -> hook on what leaves it.

        Returns:
            (C, D), not normalised; (B, C, D) for the rows of B images.

        Raises:
            BackboneError: a class is too long, or a tower of open_clip's own is asked for more than it can.
        """
        features: Tensor = self.text(plan, extra, before_block, after_block, share_prefix=not self.is_random("text"))
        return features

    def is_random(self, tower: str) -> bool:
        """Whether a tower ("image" or "text") draws noise now; the loaded one never does."""
        return False

    def logits(self, image_features: Tensor, class_features: Tensor) -> Tensor:
        """Scaled cosine similarities, in float32 or wider whatever the autocast.

        Args:
            image_features: (B, D), any norm.
            class_features: (C, D), any norm; or (B, C, D), those of each image.

        Returns:
            (B, C): exp(logit_scale) * f @ t.T, plus the logit bias where there is one.
        """
        with torch.autocast(image_features.device.type, enabled=False):
            f, t = (x if x.dtype == torch.float64 else x.float() for x in (image_features, class_features))
            wide = torch.promote_types(f.dtype, t.dtype)
            f, t = F.normalize(f.to(wide), dim=-1), F.normalize(t.to(wide), dim=-1)
            scaled = self.logit_scale.exp() * f
            out = scaled @ t.T if t.ndim == 2 else (t @ scaled.unsqueeze(-1)).squeeze(-1)
            return out if self.logit_bias is None else out + self.logit_bias

    def compute_hash(self) -> str:
        """SHA-256 of all tensors as they are now (persistent buffers count, order does not)."""
        return hashing.hash_tensors(self.state_dict().items())

    def to_open_clip_state_dict(self) -> dict[str, Tensor]:
        """All tensors in open_clip's names and packing, bit-identical to those that were loaded."""
        out = {"logit_scale": self.logit_scale.detach()}
        if self.logit_bias is not None:
            out["logit_bias"] = self.logit_bias.detach()
        for tower in (self.image, self.text):
            out |= weights.to_open_clip(tower.state_dict(), tower.table())
        return out


def text_prefix(spec: BackboneSpec) -> str:
    """ "text." where open_clip keeps the text tower in a module of its own."""
    custom = spec.config.get("custom_text") or spec.config["text_cfg"].get("hf_model_name")
    return "text." if custom else ""
