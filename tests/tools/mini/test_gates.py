"""The release gates, on the shipped weights and the test pictures; and that each of them can fail."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from clipbench.mini.cards import all_cards
from clipbench.mini.words import family
from tools.mini import gates, golden, measure
from tools.mini.gates import GATES
from tools.mini.measure import Score

if TYPE_CHECKING:
    from tools.mini.measure import Bench


@pytest.mark.slow
@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.__name__)
def test_gate(bench: Bench, gate) -> None:
    found = gate(bench)
    assert found.passed, f"{found.name}: {found.measured}, asked {found.threshold}"


class Fake:
    """Stands for a bench with other measurements."""

    def __init__(self, bench: Bench, **changed: object) -> None:
        self._bench = bench
        self.__dict__.update(changed)

    def __getattr__(self, name: str) -> object:
        return getattr(self._bench, name)


RATES = {"zero_shot": 0.7, "neutral": 0.9, "deranged": 0.01, "linear_probe": 0.85, "pixel_probe": 0.4}
CONTROLS = ("blank zero-shot", "blank probe", "random content zero-shot", "random content probe")


def _scores(rate: float | None) -> dict[tuple[str, str], Score]:
    """Of every card and half 4,000 answers of which so many are right; None: as many as by chance."""
    chances = {(card.key, half): 1 / len(labels) for card in all_cards() for half, labels in card.halves().items()}
    return {
        where: Score(round(4000 * (chance if rate is None else rate)), 4000, chance)
        for where, chance in chances.items()
    }


def _good(bench: Bench, **rates: float) -> Fake:
    """A bench whose accuracies are as they should be, but for those that are given."""
    found = {name: _scores(rate) for name, rate in (RATES | rates).items()}
    return Fake(bench, **found, style_only=dict.fromkeys(CONTROLS, _scores(None)))


@pytest.mark.parametrize(
    ("gate", "wrong"),
    [
        (gates.mean_zero_shot, {"zero_shot": 0.3}),
        (gates.mean_zero_shot, {"zero_shot": 0.97}),
        (gates.zero_shot_floor, {"zero_shot": 0.2}),
        (gates.zero_shot_ceiling, {"zero_shot": 0.97}),
        (gates.style_gap, {"neutral": 0.7}),
        (gates.neutral_floor, {"neutral": 0.7}),
        (gates.names_matter, {"deranged": 0.7}),
        (gates.probe_gain, {"linear_probe": 0.7}),
        (gates.pixels_weak, {"pixel_probe": 0.85}),
    ],
)
def test_gates_on_accuracy_fail_where_accuracy_is_wrong(bench: Bench, gate, wrong: dict[str, float]) -> None:
    assert gate(_good(bench)).passed
    assert not gate(_good(bench, **wrong)).passed


@pytest.mark.parametrize(
    "gate",
    [gates.blank_zero_shot, gates.blank_probe, gates.random_content_zero_shot, gates.random_content_probe],
    ids=lambda gate: gate.__name__,
)
def test_gates_on_controls_fail_where_style_tells_the_class(bench: Bench, gate) -> None:
    assert gate(_good(bench)).passed
    assert not gate(Fake(bench, style_only=dict.fromkeys(CONTROLS, _scores(0.7)))).passed


def test_the_gap_gate_sees_a_class_in_the_index_and_an_unseen_pair(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "pretraining_tuples", lambda one, held_out: one.grid())
    assert not gates.gap(bench).passed
    monkeypatch.setattr(gates, "pretraining_tuples", lambda one, held_out: [v for v in one.grid() if v[0] == "plain"])
    assert "unseen" in gates.gap(bench).measured
    assert not gates.gap(bench).passed


def test_the_vocabulary_gate_sees_a_missing_row(bench: Bench) -> None:
    token = 7
    from open_clip.tokenizer import SimpleTokenizer

    token = SimpleTokenizer().encode("umbrella")[0]
    lost = bench.weights._replace(known=bench.weights.known - {token})
    found = gates.vocabulary(Fake(bench, weights=lost))
    assert not found.passed
    assert "umbrella" in found.measured


def test_the_name_gate_sees_a_repeated_name(bench: Bench) -> None:
    card = bench.cards[0]
    twice = replace(card, classnames=(card.classnames[0], *card.classnames[:-1]))
    assert not gates.distinct(Fake(bench, cards=(twice,))).passed


def test_the_open_clip_gate_sees_a_changed_weight(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = gates.PlainClip

    def changed(weights, dtype):
        state = {**weights.state, "visual.proj": weights.state["visual.proj"] * np.float32(1.0001)}
        return inner(weights._replace(state=state), dtype)

    monkeypatch.setattr(gates, "PlainClip", changed)
    assert not gates.open_clip_agrees(bench).passed


def test_the_renderer_gate_sees_other_pictures(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = golden.golden_pictures()
    monkeypatch.setattr(golden, "golden_pictures", lambda: np.roll(pictures, 1, axis=2))
    assert not gates.renderer(bench).passed


def test_the_size_gate_sees_a_large_file(bench: Bench, tmp_path) -> None:
    large = tmp_path / "large"
    large.write_bytes(b"0" * 8_000_001)
    assert not gates.size(Fake(bench, path=large)).passed


def test_the_command_fails_on_weights_that_know_nothing(
    tmp_path, capsys: pytest.CaptureFixture[str], bench: Bench
) -> None:
    assert measure.table(_good(bench, zero_shot=0.15)).splitlines()[1].split()[2].startswith("15.0")
    with pytest.raises(SystemExit):
        gates.main(["--split", "train"])
    assert "invalid choice" in capsys.readouterr().err


def test_a_score_counts() -> None:
    score = Score(30, 100, 0.2)
    assert score.percent == 30
    assert score.errors_from_chance == pytest.approx(0.1 / (0.2 * 0.8 / 100) ** 0.5)
    assert (score + Score(10, 100, 0.1)) == Score(40, 200, pytest.approx(0.15))
    assert family("dtd").name == "textures"
