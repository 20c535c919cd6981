"""Captions and pretraining: what is true of which picture, the loss against a slow one, nothing held out is shown."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from clipbench.mini.cards import read_card
from clipbench.mini.words import FAMILIES, family
from tools.mini import captions, pretrain


def _batch(count: int = 200) -> tuple[np.ndarray, list, list, list]:
    rng = np.random.default_rng(0)
    which, values, said = [], [], []
    for _ in range(count):
        index = int(rng.integers(3))
        one = FAMILIES[index]
        grid = one.grid()[:12]
        chosen = grid[int(rng.integers(len(grid)))]
        which.append(index)
        values.append(chosen)
        said.append(captions.draw(one, chosen, rng))
    return np.array(which), values, said, []


def test_truth_equals_reading_the_words() -> None:
    which, values, said, _ = _batch()
    index = np.array([captions.value_index(FAMILIES[w], v) for w, v in zip(which, values, strict=True)])
    found = captions.truth(which, index, np.array([one.stated for one in said]))
    for i, (w, picture) in enumerate(zip(which, values, strict=True)):
        for j, caption in enumerate(said):
            same = w == which[j]
            stated = [v for v, s in zip(values[j], caption.stated, strict=True) if s]
            shown = [v for v, s in zip(picture, caption.stated, strict=True) if s]
            assert found[i, j] == (same and stated == shown)
    assert found.diagonal().all()
    assert found.sum() > len(found)


def test_a_caption_states_what_it_says_it_states() -> None:
    which, values, said, _ = _batch()
    for w, chosen, caption in zip(which, values, said, strict=True):
        words = caption.text.replace(",", "").replace(".", "").split()
        assert all(value in words for value, stated in zip(chosen, caption.stated, strict=True) if stated)
        assert FAMILIES[w]


def test_placeholders_stand_before_the_phrase() -> None:
    things = family("things")
    drawn = [captions.draw(things, ("striped", "red", "star"), np.random.default_rng(i), 24).text for i in range(200)]
    counts = [text.split().count("x") for text in drawn]
    assert min(counts) == 1
    assert max(counts) == 24


@pytest.mark.parametrize("one", FAMILIES, ids=lambda one: one.name)
def test_every_caption_fits_the_context(one) -> None:
    reader = pretrain.Reader()
    longest = max(len(reader.rows(text)) for text in captions.every_caption(one, one.grid()))
    assert longest <= 24
    # CoOp: sixteen vectors, the name, a full stop, start and end.
    assert max(len(reader.rows(f"{one.phrase(values)}.")) for values in one.grid()) + 16 <= 40


def test_the_stream_is_keyed_and_shows_no_class() -> None:
    first, again, other = (pretrain.Pairs(seed) for seed in (0, 0, 1))
    pictures, texts, true = first.batch(64)
    repeated = again.batch(64)
    assert np.array_equal(pictures, repeated[0])
    assert texts == repeated[1]
    assert np.array_equal(true, repeated[2])
    assert not np.array_equal(pictures, other.batch(64)[0])
    names = {name for one in FAMILIES for name in read_card(one.key).classnames}
    for _ in range(20):
        assert not [text for text in first.batch(16)[1] if any(name in text for name in names)]


def test_the_loss_equals_a_slow_one() -> None:
    generator = torch.Generator().manual_seed(0)
    image, text = (
        torch.nn.functional.normalize(torch.randn(9, 5, generator=generator, dtype=torch.float64), dim=-1)
        for _ in range(2)
    )
    true = torch.rand(9, 9, generator=generator) < 0.2
    true.fill_diagonal_(True)
    scale = 7.0
    total = 0.0
    for i in range(9):
        for rows, columns, mask in ((image, text, true), (text, image, true.T)):
            scores = [scale * float(rows[i] @ columns[j]) for j in range(9)]
            kept = [s for j, s in enumerate(scores) if j == i or not mask[i, j]]
            total += math.log(sum(map(math.exp, kept))) - scores[i]
    found = pretrain.contrast(image, text, torch.tensor(scale, dtype=torch.float64), true)
    assert float(found) == pytest.approx(total / 18, abs=1e-10)


def test_the_cropped_text_tower_equals_open_clips() -> None:
    torch.manual_seed(0)
    reader = pretrain.Reader()
    model = pretrain.compact_clip(len(reader.index)).double().eval()
    model.attn_mask = model.attn_mask.double()
    rows, ends = reader.batch(["a photo of a red star.", "a satellite photo of river in green land beside a sea."])
    full = torch.zeros(2, 40, dtype=torch.long)
    full[:, : rows.shape[1]] = rows
    with torch.no_grad():
        expected = model.encode_text(full, normalize=True)
        assert torch.allclose(pretrain.encode_text(model, rows, ends), expected, atol=1e-12, rtol=0)


def test_pretraining_is_a_function_of_its_seed(capsys: pytest.CaptureFixture[str]) -> None:
    first, again = (pretrain.train(0, steps=2, batch=8)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = pretrain.train(1, steps=2, batch=8)[0].state_dict()
    assert not torch.equal(first["visual.proj"], other["visual.proj"])
    assert "step 2/2" in capsys.readouterr().out
