"""Names of classes that a user gives: what gives the same prompt is found and named."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipbench.data.classnames import as_prompted, name_faults, normal


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["Cat", "cat"], "classes 'Cat' and 'cat' give the same prompt"),
        (["cat_dog", "eel", "cat dog"], "classes 'cat_dog' and 'cat dog' give the same prompt"),
        (["cat", "cat "], "classes 'cat' and 'cat ' give the same prompt"),
        (["a  b", "a b", "A_b"], "classes 'a  b' and 'a b' and 'A_b' give the same prompt"),
        (["R&B", "r&amp;b"], "give the same prompt"),
        (["caf\u00e9", "cafe\u0301"], "give the same prompt"),
        (["cat", "dog", "cat"], "two classes have the same name: 'cat'"),
        (["cat", "_"], "1 class names without a word: '_'"),
        (["cat", " "], "1 class names without a word: ' '"),
    ],
)
def test_names_that_give_the_same_prompt_are_named(names: list[str], words: str) -> None:
    (fault,) = name_faults(names)
    assert words in fault


def test_every_kind_of_fault_is_named_at_once() -> None:
    assert len(name_faults(["cat", "cat", "Dog", "dog", "_"])) == 3
    assert name_faults(["cat", "dog", "cats", "cat dog", "café", "cafe"]) == []


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet="aBc\u00e9\u00c9\u0301_ -1\t", min_size=1, max_size=8))
def test_what_counts_as_the_same_prompt_is_the_same_for_the_tokenizer(name: str) -> None:
    from clipbench.backbone.tokenizer import _simple

    encode = _simple("lower").encode
    assert encode(f"a photo of a {as_prompted(name)}.".replace(" .", ".")) == encode(
        f"a photo of a {' '.join(name.replace('_', ' ').split())}.".replace(" .", ".")
    )
    assert as_prompted(as_prompted(name)) == as_prompted(name) == as_prompted(normal(name))
