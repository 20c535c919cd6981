"""Words to token ids: open_clip's tokenizers, but without padding and without silent truncation."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any

from clipbench.backbone import catalogue, hub
from clipbench.backbone.sources import FOLDER_PREFIX
from clipbench.backbone.spec import BackboneSpec
from clipbench.errors import BackboneError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "spiece.model", "sentencepiece.bpe.model", "vocab.txt")
GOOGLE = "http://storage.googleapis.com"  # where open_clip takes SigLIP's vocabulary from


@lru_cache(maxsize=1)
def _tokenizer_module() -> Any:
    """open_clip's tokenizer file alone: importing the whole package costs seconds."""
    if "open_clip.tokenizer" in sys.modules:
        return sys.modules["open_clip.tokenizer"]
    file = catalogue.open_clip_folder() / "tokenizer.py"
    spec = importlib.util.spec_from_file_location("_clipbench_open_clip_tokenizer", file)
    if spec is None or spec.loader is None:
        raise BackboneError(f"cannot read open_clip's tokenizer at {file}")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ImportError:  # another layout of open_clip: the slow way
        module = importlib.import_module("open_clip.tokenizer")
    return module


@lru_cache(maxsize=4)
def _simple(clean: str) -> Any:
    return _tokenizer_module().SimpleTokenizer(clean=clean)


class Tokenizer:
    """Token ids of prompts for one backbone.

    Args:
        spec: names the tokenizer.
        end_of_text: sequences are cut behind the first such id; None where padding matters (no cut).
        known: the only ids that exist (the embedded backbone); None for all.

    Attributes:
        pad: id that fills sequences up in towers where padding matters.
    """

    def __init__(self, spec: BackboneSpec, end_of_text: int | None, known: Collection[int] | None = None) -> None:
        self.spec, self.end_of_text = spec, end_of_text
        self.known = None if known is None else frozenset(int(token) for token in known)
        text = spec.config["text_cfg"]
        self.context_length = int(text.get("context_length", 77))
        siglip = not spec.own_config and "siglip" in spec.architecture.lower()
        self.simple = "hf_tokenizer_name" not in text and not siglip
        self.pad = int(text.get("pad_id", 0))
        if self.simple:
            self.inner = _simple((text.get("tokenizer_kwargs") or {}).get("clean", "lower"))
        else:
            self.inner, self.pad = self._hugging_face()

    def _hugging_face(self) -> tuple[Any, int]:
        """open_clip's wrapper of a Hugging Face tokenizer, and its padding id."""
        name = self.spec.own_config or self.spec.architecture
        try:
            self._refuse_absent(in_folder=name.startswith(FOLDER_PREFIX))
            import open_clip

            wrapper = open_clip.get_tokenizer(name)
        except (ImportError, OSError, ValueError, hub.NotFetched) as error:  # transformers: OSError for what is missing
            raise BackboneError(
                f"the tokenizer of backbone '{self.spec.name}' cannot be loaded ({hub.gist(error)}); it needs the"
                " package transformers and the tokenizer's files"
            ) from error
        pad = getattr(wrapper.tokenizer, "pad_token_id", None)
        return wrapper, int(pad) if pad is not None else 0

    def _refuse_absent(self, in_folder: bool) -> None:
        """Say at once that files of the hub can neither be found nor fetched: transformers would try for minutes.

        Raises:
            ImportError: transformers are not installed.
            NotFetched: the tokenizer is not in the hub's cache, and there is no network.
        """
        import transformers  # noqa: F401

        repository = self.spec.config["text_cfg"].get("hf_tokenizer_name")
        if in_folder or (repository and hub.cached(repository, TOKENIZER_FILES) is not None):
            return
        hub.refuse_offline(hub.HUB if repository else GOOGLE)

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, start of text to end of text.

        Args:
            texts: prompts.

        Returns:
            One list of ids a text, no padding.

        Raises:
            BackboneError: a text is longer than the context, or holds a word that the backbone does not know.
        """
        return [self._checked(text, self._ids(text)) for text in ([texts] if isinstance(texts, str) else texts)]

    def _ids(self, text: str) -> list[int]:
        if self.simple:
            return [self.inner.sot_token_id, *self.inner.encode(text), self.inner.eot_token_id]
        ids = [int(token) for token in self.inner([text], context_length=4 * self.context_length)[0]]
        if self.end_of_text is not None and self.end_of_text in ids:
            return ids[: ids.index(self.end_of_text) + 1]
        while len(ids) > 1 and ids[-1] == self.pad:
            ids.pop()
        return ids

    def _checked(self, text: str, ids: list[int]) -> list[int]:
        if len(ids) > self.context_length:
            raise BackboneError(
                f"the prompt '{text[:80]}' has {len(ids)} tokens, but the text tower of backbone '{self.spec.name}'"
                f" takes {self.context_length}"
            )
        if self.known is not None and not self.known.issuperset(ids):
            raise BackboneError(
                f"word '{self._unknown_word(text)}' of the prompt '{text[:80]}' is not known to the"
                f" {self.spec.name} backbone, whose words are a closed list; use a pretrained backbone"
                " such as 'ViT-B-16/openai' for other words"
            )
        return ids

    def _unknown_word(self, text: str) -> str:
        """The first word with an id outside the closed list."""
        for word in text.split():
            if not (self.known or frozenset()).issuperset(self.inner.encode(word)):
                return word.strip(".,;:!?")
        return text
