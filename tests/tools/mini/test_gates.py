"""The release gates, on the shipped weights and the test pictures; and that each of them can fail."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

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


def _all(bench: Bench, rate: float) -> dict[tuple[str, str], Score]:
    return {where: replace(score, correct=round(rate * score.total)) for where, score in bench.zero_shot.items()}


def test_gates_on_accuracy_fail_where_accuracy_is_wrong(bench: Bench) -> None:
    low, high = _all(bench, 0.3), _all(bench, 0.97)
    assert not gates.mean_zero_shot(Fake(bench, zero_shot=low)).passed
    assert not gates.mean_zero_shot(Fake(bench, zero_shot=high)).passed
    assert not gates.zero_shot_floor(Fake(bench, zero_shot=low)).passed
    assert not gates.zero_shot_ceiling(Fake(bench, zero_shot=high)).passed
    assert not gates.style_gap(Fake(bench, neutral=bench.zero_shot)).passed
    assert not gates.neutral_floor(Fake(bench, neutral=bench.zero_shot)).passed
    assert not gates.names_matter(Fake(bench, deranged=bench.zero_shot)).passed
    assert not gates.probe_gain(Fake(bench, linear_probe=bench.zero_shot)).passed
    assert not gates.pixels_weak(Fake(bench, pixel_probe=bench.linear_probe)).passed


@pytest.mark.parametrize(
    "gate",
    [gates.blank_zero_shot, gates.blank_probe, gates.random_content_zero_shot, gates.random_content_probe],
    ids=lambda gate: gate.__name__,
)
def test_gates_on_controls_fail_where_style_tells_the_class(bench: Bench, gate) -> None:
    shown = dict.fromkeys(bench.style_only, bench.zero_shot)
    assert not gate(Fake(bench, style_only=shown)).passed


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
    monkey = Fake(bench, zero_shot=_all(bench, 0.15))
    assert measure.table(monkey).splitlines()[1].split()[2].startswith("15.0")
    with pytest.raises(SystemExit):
        gates.main(["--split", "train"])
    assert "invalid choice" in capsys.readouterr().err


def test_a_score_counts() -> None:
    score = Score(30, 100, 0.2)
    assert score.percent == 30
    assert score.errors_from_chance == pytest.approx(0.1 / (0.2 * 0.8 / 100) ** 0.5)
    assert (score + Score(10, 100, 0.1)) == Score(40, 200, pytest.approx(0.15))
    assert family("dtd").name == "textures"
