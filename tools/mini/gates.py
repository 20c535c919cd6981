"""The release gates of the suite: what must hold for the shipped cards, renderer and weights.

``python -m tools.mini.gates`` prints each gate with what was measured, its threshold and whether it holds, then
the accuracies by dataset. The exit status is 0 only if all hold. The tests run the same functions.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image

from clipbench.mini.images import load_images
from clipbench.mini.weights import PATH
from tools.mini import captions, golden, measure
from tools.mini.classes import pairs, pretraining_tuples
from tools.mini.measure import Bench, Score
from tools.mini.pixels import pixels
from tools.mini.plain import PlainClip
from tools.mini.save import export


class Gate(NamedTuple):
    """One gate.

    Attributes:
        name: what is asked.
        measured: what was found.
        threshold: what must hold.
        passed: whether it does.
    """

    name: str
    measured: str
    threshold: str
    passed: bool


def _worst(scores: dict[tuple[str, str], Score], sign: int, margin: Callable[[Score], float]) -> tuple[str, float]:
    where, score = min(scores.items(), key=lambda item: sign * margin(item[1]))
    return "/".join(where), margin(score)


def size(bench: Bench) -> Gate:
    """The weights file is small."""
    megabytes = bench.path.stat().st_size / 1e6
    return Gate("size of the weights file", f"{megabytes:.2f} MB", "<= 8 MB", megabytes <= 8)


def mean_zero_shot(bench: Bench) -> Gate:
    """Zero-shot leaves room on both sides."""
    base, novel = (measure.mean(bench.zero_shot, half) for half in ("base", "novel"))
    return Gate(
        "mean zero-shot, base / novel",
        f"{base:.1f} / {novel:.1f}",
        "60..80 each",
        min(base, novel) >= 60 and max(base, novel) <= 80,
    )


def zero_shot_floor(bench: Bench) -> Gate:
    """No dataset is out of reach."""
    where, value = _worst(bench.zero_shot, 1, lambda s: s.percent - 100 * s.chance)
    return Gate("zero-shot above chance, lowest dataset and half", f"{value:.1f} ({where})", ">= 20", value >= 20)


def zero_shot_ceiling(bench: Bench) -> Gate:
    """No dataset is solved before anything is learned."""
    where, value = _worst(bench.zero_shot, -1, lambda s: s.percent)
    return Gate("zero-shot, highest dataset and half", f"{value:.1f} ({where})", "<= 90", value <= 90)


def style_gap(bench: Bench) -> Gate:
    """The style of the benchmark costs accuracy."""
    gaps = [measure.mean(bench.neutral, half) - measure.mean(bench.zero_shot, half) for half in ("base", "novel")]
    return Gate(
        "neutral minus styled zero-shot, base / novel", f"{gaps[0]:.1f} / {gaps[1]:.1f}", ">= 10 each", min(gaps) >= 10
    )


def neutral_floor(bench: Bench) -> Gate:
    """In the style of pretraining every dataset is understood."""
    where, value = _worst(bench.neutral, 1, lambda s: s.percent)
    return Gate("neutral zero-shot, lowest dataset and half", f"{value:.1f} ({where})", ">= 75", value >= 75)


def _chance_gate(bench: Bench, kind: str) -> Gate:
    scores = bench.style_only[kind]
    by_card: dict[str, Score] = {}
    for (card, _), score in scores.items():
        by_card[card] = by_card[card] + score if card in by_card else score
    off = np.mean([s.percent for s in scores.values()]) - np.mean([100 * s.chance for s in scores.values()])
    card, worst = max(by_card.items(), key=lambda item: abs(item[1].errors_from_chance))
    found = f"{off:+.1f}; {worst.errors_from_chance:+.1f} SE ({card})"
    return Gate(
        f"{kind}, minus chance; worst dataset",
        found,
        "within 2.5; 3 SE",
        bool(abs(off) <= 2.5 and abs(worst.errors_from_chance) <= 3),
    )


def blank_zero_shot(bench: Bench) -> Gate:
    """Background, clutter and style alone say nothing to the names."""
    return _chance_gate(bench, "blank zero-shot")


def blank_probe(bench: Bench) -> Gate:
    """Background, clutter and style alone say nothing to a probe."""
    return _chance_gate(bench, "blank probe")


def random_content_zero_shot(bench: Bench) -> Gate:
    """Where content covers the canvas: the content of a random class says nothing about the own label."""
    return _chance_gate(bench, "random content zero-shot")


def random_content_probe(bench: Bench) -> Gate:
    """As above, to a probe."""
    return _chance_gate(bench, "random content probe")


def names_matter(bench: Bench) -> Gate:
    """With the names of a half deranged, accuracy falls below chance."""
    found = float(np.mean([s.percent for s in bench.deranged.values()]))
    chance = float(np.mean([100 * s.chance for s in bench.deranged.values()]))
    return Gate("zero-shot with deranged names, mean", f"{found:.1f}", f"< chance, {chance:.1f}", found < chance)


def probe_gain(bench: Bench) -> Gate:
    """Sixteen shots teach something."""
    gain = measure.mean(bench.linear_probe, "base") - measure.mean(bench.zero_shot, "base")
    return Gate("linear probe on 16 shots minus zero-shot, base", f"{gain:.1f}", ">= 8", gain >= 8)


def pixels_weak(bench: Bench) -> Gate:
    """What is learned is not the colour of pixels."""
    gap = measure.mean(bench.linear_probe, "base") - measure.mean(bench.pixel_probe, "base")
    return Gate("linear probe minus pixel probe, base", f"{gap:.1f}", ">= 10", gap >= 10)


def gap(bench: Bench) -> Gate:
    """No class is in the pretraining index, no caption is a class phrase, every value and pair of a class is seen. By
    enumeration."""
    leaks, blind = [], []
    for card in bench.cards:
        family = card.family
        seen = pretraining_tuples(family, card.classes)
        leaks += [f"{family.name} {values}" for values in set(seen) & set(card.classes)]
        prompts = {family.phrase(values, form) for values in card.classes for form in (0, 1)}
        wordings = {template.format(prompt) for template in captions.templates(family) for prompt in prompts}
        leaks += list(wordings & set(captions.every_caption(family, seen)))
        seen_values = {(place, value) for values in seen for place, value in enumerate(values)}
        seen_pairs = {pair for values in seen for pair in pairs(values)}
        for values in card.classes:
            blind += [f"{family.name} {value}" for value in enumerate(values) if value not in seen_values]
            blind += [f"{family.name} {pair}" for pair in pairs(values) if pair not in seen_pairs]
    found = f"{len(leaks)} leaks, {len(blind)} unseen values or pairs" + (
        f": {(leaks + blind)[0]}" if leaks or blind else ""
    )
    return Gate("gap between pretraining and classes", found, "0, 0", not leaks and not blind)


def distinct(bench: Bench) -> Gate:
    """No two classes of a card have one name, no two prompts one feature."""
    same = sum(len(card.classnames) - len(set(card.classnames)) for card in bench.cards)
    near = max(
        float(texts[i] @ texts[j]) for texts in bench.texts.values() for i, j in combinations(range(len(texts)), 2)
    )
    return Gate(
        "class names told apart",
        f"{same} repeated; largest cosine {near:.4f}",
        "0; < 0.999",
        same == 0 and near < 0.999,
    )


def vocabulary(bench: Bench) -> Gate:
    """Every token of every prompt is a stored row that is not zero."""
    tokenizer = SimpleTokenizer()
    needed = {
        token
        for text in captions.prompts({card.family: card.classnames for card in bench.cards})
        for token in tokenizer.encode(text)
    }
    table = bench.weights.state["token_embedding.weight"]
    lost = sorted(token for token in needed if token not in bench.weights.known or not table[token].any())
    found = f"{len(needed)} tokens, {len(lost)} missing" + (f": {tokenizer.decode(lost[:1])}" if lost else "")
    return Gate("tokens of all names, templates, contexts", found, "0 missing", not lost)


def _apart(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def open_clip_agrees(bench: Bench) -> Gate:
    """Exported, then loaded strictly by open_clip, both towers equal the plain ones; so does the preprocessing."""
    texts = [card.family.template.format(name) for card in bench.cards for name in card.classnames]
    pictures = np.concatenate([load_images(card.key, "val")[::23][:6] for card in bench.cards])[:64]
    with tempfile.TemporaryDirectory() as folder:
        export(Path(folder), bench.weights)
        model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(texts)
    model.eval()
    seen = torch.stack([preprocess(Image.fromarray(picture)) for picture in pictures])
    same_input = _apart(seen.numpy(), pixels(pictures).numpy()) < 1e-6
    loaded = model.state_dict()
    strict = set(loaded) == set(bench.weights.state) and all(
        np.array_equal(loaded[name].numpy(), values) for name, values in bench.weights.state.items()
    )
    worst = {}
    for dtype in (torch.float64, torch.float32):
        plain = PlainClip(bench.weights, str(dtype).removeprefix("torch."))
        model.to(dtype)
        with torch.no_grad():
            scaled = (torch.from_numpy(pictures).permute(0, 3, 1, 2).to(dtype) / 255 - 0.5) / 0.25
            image, text = model.visual(scaled).numpy(), model.encode_text(tokens).numpy()
        worst[dtype] = max(_apart(image, plain.image(pictures)), _apart(text, plain.text(tokens.numpy())))
    double, single = worst[torch.float64], worst[torch.float32]
    found = f"{'strict' if strict and same_input else 'not equal'}; {double:.0e}; {single:.0e}"
    return Gate(
        "open_clip loads the export; float64; float32",
        found,
        "strict; 1e-10; 1e-5",
        strict and same_input and double <= 1e-10 and single <= 1e-5,
    )


def renderer(bench: Bench) -> Gate:
    """The renderer draws the golden pictures."""
    same, share, largest = golden.compare(golden.golden_pictures())
    found = f"{same}/220 equal, {100 * share:.3f} % of bytes off by <= {largest}"
    return Gate("golden pictures", found, "equal, or +-1 on <= .01 %", largest <= 1 and share <= 1e-4)


GATES: tuple[Callable[[Bench], Gate], ...] = (
    size,
    mean_zero_shot,
    zero_shot_floor,
    zero_shot_ceiling,
    style_gap,
    neutral_floor,
    blank_zero_shot,
    blank_probe,
    random_content_zero_shot,
    random_content_probe,
    names_matter,
    probe_gain,
    pixels_weak,
    gap,
    distinct,
    vocabulary,
    open_clip_agrees,
    renderer,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all gates and print them; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, default=PATH)
    parser.add_argument("--split", choices=("val", "test"), default="test")
    chosen = parser.parse_args(arguments)
    bench = Bench(chosen.weights, chosen.split)
    failed = 0
    for gate in GATES:
        found = gate(bench)
        failed += not found.passed
        print(
            f"{'pass' if found.passed else 'FAIL'}  {found.name:60s} {found.measured:40s} {found.threshold}", flush=True
        )
    print(f"\n{chosen.split} pictures, percent, base/novel\n{measure.table(bench)}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
