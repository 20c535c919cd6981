"""Prompts to tokens: as open_clip does, but nothing is padded, cut or unknown in silence."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from clipbench.backbone import PromptPlan
from clipbench.backbone.clip import Backbone
from clipbench.backbone.spec import resolve_spec
from clipbench.backbone.tokenizer import Tokenizer
from clipbench.errors import BackboneError

TEXTS = ["a photo of a Cat.", "émigré's 737-200, aircraft.", "", "  forest\n path ", "a photo of a <b>dog</b>"]


@pytest.fixture
def clip(tiny: Any) -> Backbone:
    return tiny(text={"vocab_size": 49408, "context_length": 16})


def test_ids_equal_open_clips_without_its_padding(clip: Backbone) -> None:
    from open_clip.tokenizer import SimpleTokenizer

    theirs = SimpleTokenizer(context_length=16)(TEXTS)
    for ours, row in zip(clip.tokenize(TEXTS), theirs.tolist(), strict=True):
        assert ours == row[: len(ours)]
        assert not any(row[len(ours) :])
        assert (ours[0], ours[-1]) == (49406, 49407)


def test_a_long_prompt_is_an_error_and_not_cut(clip: Backbone) -> None:
    with pytest.raises(BackboneError, match=r"'a a a .* has 22 tokens, but .* takes 16"):
        clip.tokenize(["a " * 20])


def test_a_word_outside_the_closed_list_is_named() -> None:
    spec = resolve_spec("ViT-B-32/random")
    words = Tokenizer(spec, 49407)(["a photo of a red star."])[0]
    closed = Tokenizer(spec, 49407, known=words)
    assert closed(["a red photo of a star."])
    with pytest.raises(BackboneError, match=r"word 'river' of the prompt 'a photo of a river\.' is not known"):
        closed(["a photo of a red star.", "a photo of a river."])


def test_tokens_behind_the_end_of_text_and_padding_are_cut() -> None:
    """Hugging Face tokenizers pad: towers that pool at an end-of-text id keep what stands before it."""

    class Padded:
        def __call__(self, texts: list[str], context_length: int) -> list[list[int]]:
            return [[0, 11, 12, 2, 1, 1]]

    spec = resolve_spec("ViT-B-32/random")
    for end, expected in ((2, [0, 11, 12, 2]), (None, [0, 11, 12, 2])):
        tokenizer = Tokenizer(spec, end)
        tokenizer.simple, tokenizer.inner, tokenizer.pad = False, Padded(), 1
        assert tokenizer(["x"]) == [expected]


def test_a_tokenizer_that_cannot_be_loaded_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)  # as where it is not installed
    with pytest.raises(BackboneError, match="needs the package transformers"):
        Tokenizer(resolve_spec("ViT-B-16-SigLIP/webli"), None)


def test_plans_are_plain_values() -> None:
    plan = PromptPlan([[1, 2, 3], [1, 2, 4, 5]])
    assert plan == PromptPlan([(1, 2, 3), (1, 2, 4, 5)])
    assert hash(plan) == hash(PromptPlan([(1, 2, 3), (1, 2, 4, 5)]))
    assert plan != PromptPlan([[1, 2, 3]])
    assert len(plan) == 2
    assert repr(plan) == "PromptPlan(2 classes, 7 tokens, shared prefix of 2)"


@pytest.mark.parametrize(
    ("sequences", "prefix"),
    [
        ([[1, 2, 3]], 2),
        ([[1, 2], [1, 2]], 1),
        ([[1], [1, 2]], 0),
        ([[3, 2], [1, 2]], 0),
        ([[1, 2, 3, 9], [1, 2, 4, 9]], 2),
    ],
)
def test_the_common_prefix_leaves_every_class_a_token(sequences: list[list[int]], prefix: int) -> None:
    assert PromptPlan(sequences).prefix == prefix
