"""The renderer: a pure function of its arguments, whose streams do not disturb each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipbench.mini import shapes, styles
from clipbench.mini.cards import all_cards
from clipbench.mini.content import FULL_CANVAS
from clipbench.mini.render import SPLITS, key, raw, render, uniforms
from clipbench.mini.styles import NEUTRAL, Style
from clipbench.mini.words import FAMILIES, family
from tools.mini import golden

CLEAN = Style(jitter=0.0, contrast_spread=0.0, brightness_spread=0.0)


def test_golden_pictures_are_drawn_again() -> None:
    pictures = golden.golden_pictures()
    same, share, largest = golden.compare(pictures)
    assert largest <= 1
    assert share <= 1e-4
    assert same >= 200
    # The comparison sees a change of one byte in a thousand, and a whole other picture.
    changed = pictures.copy()
    changed[:, ::7, ::7] ^= 4
    assert golden.compare(changed)[2] > 1
    assert golden.compare(pictures[::-1])[0] == 0


def test_random_words_are_those_of_pcg64_everywhere() -> None:
    words = raw((1, 2, 0, 3, 4), 0, 3)
    assert words.tolist() == np.random.PCG64(np.random.SeedSequence((1, 2, 0, 3, 4, 0))).random_raw(3).tolist()
    assert [f"{u:.12f}" for u in uniforms(np.array([0, 2**63, 2**64 - 1], np.uint64))] == [
        "0.000000000000",
        "0.500000000000",
        "1.000000000000",
    ]
    assert max(uniforms(np.array([2**64 - 1], np.uint64))) < 1


@pytest.mark.parametrize("one", FAMILIES, ids=lambda one: one.name)
def test_same_key_same_picture_other_key_other_picture(one) -> None:
    values = one.grid()[5]
    first = render(one.name, values, NEUTRAL, key(1, one.name, "train", 0, 0))
    assert first.shape == (48, 48, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, render(one.name, values, NEUTRAL, key(1, one.name, "train", 0, 0)))
    for other in (key(2, one.name, "train", 0, 0), key(1, one.name, "val", 0, 0), key(1, one.name, "train", 1, 0)):
        assert not np.array_equal(first, render(one.name, values, NEUTRAL, other))


@pytest.mark.parametrize("one", FAMILIES, ids=lambda one: one.name)
def test_every_value_of_every_factor_shows(one) -> None:
    start = one.grid()[0]
    picture = key(1, one.name, "train", 0, 0)
    for place, values in enumerate(one.factors.values()):
        drawn = [render(one.name, (*start[:place], value, *start[place + 1 :]), CLEAN, picture) for value in values]
        for i, a in enumerate(drawn):
            for b in drawn[:i]:
                # Not a stray pixel: at least 1 % of the picture changes visibly.
                assert (np.abs(a.astype(int) - b).max(-1) > 25).mean() > 0.01


@pytest.mark.parametrize("one", [f for f in FAMILIES if f.name not in FULL_CANVAS], ids=lambda one: one.name)
def test_content_never_moves_the_background(one) -> None:
    picture = key(3, one.name, "train", 0, 0)
    blank = render(one.name, None, CLEAN, picture)
    first, last = (render(one.name, values, CLEAN, picture) for values in (one.grid()[0], one.grid()[-1]))
    # Where both pictures show background, it is the blank's.
    behind = (first == blank).all(-1) & (last == blank).all(-1)
    assert behind.mean() > 0.1
    assert not np.array_equal(first, last)


def test_splits_have_numbers_of_their_own() -> None:
    assert len(set(SPLITS.values())) == len(SPLITS)


def test_noise_is_standard() -> None:
    blank = Style(noise=0.1, contrast=0.0, contrast_spread=0.0, brightness_spread=0.0)
    pictures = np.stack([render("things", None, blank, key(1, "things", "train", 0, i)) for i in range(20)])
    assert abs(pictures.mean() / 255 - 0.5) < 0.002
    assert abs(pictures.std() / 255 - 0.1) < 0.002


def test_strength_scales_distances_from_no_effect() -> None:
    style = Style(contrast=0.8, noise=0.1, clutter=2, tint=(1.2, 1.0, 0.9), motion=0.6).scaled(2.0)
    assert style.contrast == pytest.approx(0.6)
    assert style.noise == pytest.approx(0.2)
    assert style.clutter == 4
    assert style.tint == pytest.approx((1.4, 1.0, 0.8))
    assert style.motion == 0.6
    assert Style(contrast=0.5).scaled(5).contrast == 0.15


def test_an_unknown_effect_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown style effect 'sparkle'"):
        Style.from_card({"sparkle": 1})


@pytest.mark.parametrize(
    ("effect", "value"),
    [
        ("edge", 0.5),
        ("hue", 40.0),
        ("desaturate", 0.8),
        ("tint", (1.3, 1.0, 0.7)),
        ("blur", 0.9),
        ("motion", 0.9),
        ("pixelate", 2),
        ("vignette", 0.8),
        ("contrast", 0.4),
        ("brightness", 0.2),
        ("occluder", 0.3),
        ("noise", 0.1),
        ("clutter", 4.0),
    ],
)
def test_every_effect_shows(effect: str, value: object) -> None:
    picture = key(1, "things", "train", 0, 0)
    plain = render("things", ("striped", "red", "star"), CLEAN, picture)
    changed = render("things", ("striped", "red", "star"), replace(CLEAN, **{effect: value}), picture)
    assert np.abs(plain.astype(int) - changed).mean() > 0.5


def test_a_hue_rotation_keeps_gray_and_a_full_turn_is_nothing() -> None:
    canvas = np.random.default_rng(0).random((3, 48, 48)).astype(np.float32)
    gray = np.broadcast_to(canvas[:1], canvas.shape)
    assert np.allclose(styles._recolour(gray, Style(hue=70.0)), gray, atol=1e-6)
    assert np.allclose(styles._recolour(canvas, Style(hue=360.0)), canvas, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.floats(-0.6, 0.6), st.floats(-0.6, 0.6), st.floats(0.1, 0.6), st.floats(-3, 3))
def test_a_disc_covers_its_area_wherever_it_stands(x: float, y: float, r: float, angle: float) -> None:
    canvas = np.zeros((3, 48, 48), np.float32)
    frame = shapes.CANVAS.place(x / 3, y / 3, 0.8, angle)
    shapes.paint(canvas, frame, shapes.disc(frame, 0, 0, r), (1.0, 1.0, 1.0))
    area = float(canvas[0].sum()) * (2 / 48) ** 2
    assert area == pytest.approx(np.pi * (0.8 * r) ** 2, rel=0.03, abs=0.002)


def test_cards_use_styles_that_pretraining_never_shows() -> None:
    for card in all_cards():
        assert not card.style.neutral
        assert card.style.jitter == 0.1
    assert family("imagenet").name == "things"
