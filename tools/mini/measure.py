"""Measurements on the mini suite with frozen features: zero-shot, linear probe, pixel probe, and the controls.

Nothing here fine-tunes anything. These numbers, on val images, are all that may guide the design of the suite.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from sklearn.linear_model import LogisticRegression

from clipbench.mini.cards import MiniCard, all_cards
from clipbench.mini.content import FULL_CANVAS
from clipbench.mini.images import Pictures, load_images
from clipbench.mini.render import key, raw, render
from clipbench.mini.styles import NEUTRAL
from clipbench.mini.weights import MODEL_CFG, PATH, Weights, load_weights
from tools.mini.pixels import pixels

Features = npt.NDArray[np.float32]

SHOTS, PER_NEUTRAL, PER_BLANK = 16, 20, 16
LP_C, PIXEL_C = 100.0, 1.0


@dataclass(frozen=True)
class Score:
    """Correct answers out of a number of pictures, and the rate of a guess."""

    correct: int
    total: int
    chance: float

    @property
    def percent(self) -> float:
        """Accuracy in percent."""
        return 100 * self.correct / self.total

    @property
    def errors_from_chance(self) -> float:
        """Distance from chance in standard errors."""
        return (self.correct / self.total - self.chance) / np.sqrt(self.chance * (1 - self.chance) / self.total)

    def __add__(self, other: Score) -> Score:
        total = self.total + other.total
        chance = (self.chance * self.total + other.chance * other.total) / total
        return Score(self.correct + other.correct, total, chance)


def open_model(weights: Weights) -> CLIP:
    """open_clip's CLIP with the given weights, in eval mode."""
    cfg = weights.config["model_cfg"]
    model = CLIP(cfg["embed_dim"], cfg["vision_cfg"], cfg["text_cfg"])
    model.load_state_dict({name: torch.from_numpy(np.array(values)) for name, values in weights.state.items()})
    return model.eval()


class Bench:
    """All measurements of one set of weights; each is computed once.

    Args:
        path: a weights file.
        split: ``val`` while the suite is designed, ``test`` for what is reported.
    """

    def __init__(self, path: Path = PATH, split: str = "test") -> None:
        self.split = split
        self.path = path
        self.weights = load_weights(path)
        self.model = open_model(self.weights)
        self.cards = all_cards()
        self._tokenizer = SimpleTokenizer(context_length=MODEL_CFG["text_cfg"]["context_length"])

    @torch.no_grad()
    def image_features(self, pictures: Pictures) -> Features:
        """(N, 48, 48, 3) pictures to (N, D) unit features."""
        parts = [
            self.model.encode_image(pixels(part), normalize=True)
            for part in np.array_split(pictures, len(pictures) // 128 + 1)
        ]
        return torch.cat(parts).numpy()

    @torch.no_grad()
    def text_features(self, texts: list[str]) -> Features:
        """(N, D) unit features of texts."""
        return self.model.encode_text(self._tokenizer(texts), normalize=True).numpy()

    def class_features(self, card: MiniCard) -> Features:
        """(C, D) unit features of the class names in the card's template."""
        return self.text_features([card.family.template.format(name) for name in card.classnames])

    def _render(self, card: MiniCard, kind: str, count: int) -> Pictures:
        """(C * count) pictures of a control; ``random`` shows the content of a random class of the own half under the
        own label."""
        out = []
        for label, values in enumerate(card.classes):
            half = card.halves()["base" if label < card.base else "novel"]
            for image in range(count):
                picture = key(card.seed, card.family.name, kind, label, image)
                shown = values
                if kind.startswith("random"):
                    shown = card.classes[half[int(raw(picture, 3, 1)[0]) % len(half)]]
                style = NEUTRAL if kind == "neutral" else card.style
                out.append(render(card.family.name, None if kind.startswith("blank") else shown, style, picture))
        return np.stack(out)

    def _features(self, kind: str, count: int, cards: tuple[MiniCard, ...] | None = None) -> dict[str, Features]:
        return {card.key: self.image_features(self._render(card, kind, count)) for card in cards or self.cards}

    @cached_property
    def train(self) -> dict[str, Features]:
        """Features of the first 16 train pictures of every class."""
        return {card.key: self.image_features(self.shots(card)) for card in self.cards}

    @cached_property
    def eval(self) -> dict[str, Features]:
        """Features of the pictures of the split."""
        return {card.key: self.image_features(load_images(card.key, self.split)) for card in self.cards}

    @cached_property
    def texts(self) -> dict[str, Features]:
        """Features of the class names."""
        return {card.key: self.class_features(card) for card in self.cards}

    def shots(self, card: MiniCard) -> Pictures:
        """The first 16 train pictures of every class."""
        pictures = load_images(card.key, "train").reshape(len(card.classes), -1, 48, 48, 3)
        return pictures[:, :SHOTS].reshape(-1, 48, 48, 3)

    # One score per card and half.

    def _zero_shot(self, images: dict[str, Features], deranged: bool = False) -> dict[tuple[str, str], Score]:
        scores = {}
        for card in self.cards:
            if card.key not in images:
                continue
            for half, labels in card.halves().items():
                of_class = images[card.key].reshape(len(card.classes), -1, images[card.key].shape[1])[labels]
                texts = self.texts[card.key][labels]
                if deranged:
                    # A cyclic shift leaves no name in its place.
                    texts = np.roll(texts, 1, axis=0)
                guess = (of_class @ texts.T).argmax(-1)
                scores[card.key, half] = Score(
                    int((np.arange(len(labels)) == guess.T).sum()), guess.size, 1 / len(labels)
                )
        return scores

    def _probe(self, train: dict[str, Features], test: dict[str, Features], c: float) -> dict[tuple[str, str], Score]:
        scores = {}
        for card in self.cards:
            if card.key not in train:
                continue
            for half, labels in card.halves().items():
                fit, held = (
                    of[card.key].reshape(len(card.classes), -1, of[card.key].shape[1])[labels] for of in (train, test)
                )
                y_fit, y_held = (np.repeat(np.arange(len(labels)), part.shape[1]) for part in (fit, held))
                model = LogisticRegression(C=c, max_iter=2000)
                model.fit(fit.reshape(len(y_fit), -1), y_fit)
                correct = int((model.predict(held.reshape(len(y_held), -1)) == y_held).sum())
                scores[card.key, half] = Score(correct, len(y_held), 1 / len(labels))
        return scores

    @cached_property
    def zero_shot(self) -> dict[tuple[str, str], Score]:
        """Pictures of the split against the class names of their half."""
        return self._zero_shot(self.eval)

    @cached_property
    def deranged(self) -> dict[tuple[str, str], Score]:
        """Zero-shot with every name at the wrong class of its half."""
        return self._zero_shot(self.eval, deranged=True)

    @cached_property
    def neutral(self) -> dict[tuple[str, str], Score]:
        """Zero-shot on pictures of the same classes in the style of pretraining."""
        return self._zero_shot(self._features("neutral", PER_NEUTRAL))

    @cached_property
    def linear_probe(self) -> dict[tuple[str, str], Score]:
        """Logistic regression on the features of 16 shots."""
        return self._probe(self.train, self.eval, LP_C)

    @cached_property
    def pixel_probe(self) -> dict[tuple[str, str], Score]:
        """Logistic regression on the same shots, each picture averaged to 8 x 8 and standardised."""
        train = {card.key: _pooled(self.shots(card)) for card in self.cards}
        test = {card.key: _pooled(load_images(card.key, self.split)) for card in self.cards}
        for name, fit in train.items():
            mean, spread = fit.mean(0), fit.std()
            train[name], test[name] = (fit - mean) / spread, (test[name] - mean) / spread
        return self._probe(train, test, PIXEL_C)

    @cached_property
    def _blanks(self) -> tuple[dict[str, Features], dict[str, Features]]:
        return self._features("blank_train", PER_BLANK), self._features("blank_test", PER_BLANK)

    @cached_property
    def _random(self) -> tuple[dict[str, Features], dict[str, Features]]:
        cards = tuple(card for card in self.cards if card.family.name in FULL_CANVAS)
        return self._features("random_train", PER_BLANK, cards), self._features("random_test", PER_BLANK, cards)

    @cached_property
    def style_only(self) -> dict[str, dict[tuple[str, str], Score]]:
        """Pictures that show no content of their class, by zero-shot and by linear probe."""
        return {
            "blank zero-shot": self._zero_shot(self._blanks[1]),
            "blank probe": self._probe(*self._blanks, LP_C),
            "random content zero-shot": self._zero_shot(self._random[1]),
            "random content probe": self._probe(*self._random, LP_C),
        }


def _pooled(pictures: Pictures) -> Features:
    blocks = pictures.reshape(-1, 8, 6, 8, 6, 3).astype(np.float32)
    return blocks.mean((2, 4)).reshape(len(pictures), -1) / 255


def mean(scores: dict[tuple[str, str], Score], half: str) -> float:
    """Mean accuracy of a half over the datasets, in percent."""
    return float(np.mean([score.percent for (_, which), score in scores.items() if which == half]))


def table(bench: Bench) -> str:
    """Accuracies by dataset, base/novel, in percent."""
    columns = {
        "zero-shot": bench.zero_shot,
        "neutral": bench.neutral,
        "probe": bench.linear_probe,
        "pixels": bench.pixel_probe,
        "deranged": bench.deranged,
        "blank": bench.style_only["blank zero-shot"],
        "blank probe": bench.style_only["blank probe"],
    }
    lines = [f"{'dataset':16s}{'chance':>8s}" + "".join(f"{name:>14s}" for name in columns)]
    for card in bench.cards:
        cells = [f"{s[card.key, 'base'].percent:.1f}/{s[card.key, 'novel'].percent:.1f}" for s in columns.values()]
        lines.append(f"{card.key:16s}{100 / card.base:8.1f}" + "".join(f"{cell:>14s}" for cell in cells))
    cells = [f"{mean(s, 'base'):.1f}/{mean(s, 'novel'):.1f}" for s in columns.values()]
    chance = np.mean([100 / card.base for card in bench.cards])
    return "\n".join([*lines, f"{'mean':16s}{chance:8.1f}" + "".join(f"{cell:>14s}" for cell in cells)])
