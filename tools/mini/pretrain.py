"""Pretraining of the mini backbone from nothing, on pictures and captions rendered on the fly.

``python -m tools.mini.pretrain --out FILE --seed 0`` trains, writes the compact file and runs the gates on it.

What it may see is the grid of every family minus the classes of the cards (neither as pictures nor as captions), in
the neutral style only. A caption that is true of another picture of the batch is taken out of the denominators, in
both directions.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import open_clip
import torch
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from torch.nn import functional

from clipbench.mini.cards import read_card
from clipbench.mini.render import key, render
from clipbench.mini.styles import NEUTRAL
from clipbench.mini.weights import END, MODEL_CFG, PATH, START
from clipbench.mini.words import FAMILIES
from tools.mini import captions
from tools.mini.classes import pretraining_tuples
from tools.mini.pixels import pixels
from tools.mini.save import save_weights
from tools.mini.vocabulary import known_words

STEPS, BATCH = 1700, 128
LR, WARMUP, FLOOR = 1e-3, 150, 0.02
# In every twelfth batch placeholders stand before the phrase, so that learned contexts of up to 24 vectors find trained
# positions.
PREFIX_EVERY, PREFIX_LONGEST = 12, 24
# The families that are hardest to read at this size are drawn twice as often.
TWICE = ("things", "food", "textures", "actions")
BETAS, WEIGHT_DECAY, CLIP_NORM, MAX_SCALE = (0.9, 0.98), 0.05, 1.0, 100.0


def token_index() -> npt.NDArray[np.int64]:
    """The token ids that the closed list of words uses, ascending; the end of text comes last, as in the full table."""
    tokenizer = SimpleTokenizer()
    ids = {i for word in known_words() for i in tokenizer.encode(word)} | {START, END}
    return np.array(sorted(ids))


class Reader:
    """Turns captions into rows of the compact token table."""

    def __init__(self) -> None:
        self.index = token_index()
        self._tokenizer = SimpleTokenizer()
        self._row = {int(token): row for row, token in enumerate(self.index)}
        self._cache: dict[str, list[int]] = {}

    def rows(self, text: str) -> list[int]:
        """Rows of one text, with start and end of text."""
        if text not in self._cache:
            tokens = [START, *self._tokenizer.encode(text), END]
            self._cache[text] = [self._row[token] for token in tokens]
        return self._cache[text]

    def batch(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, L) rows padded with 0, and (B,) places of the end of text; L is the longest text."""
        rows = [self.rows(text) for text in texts]
        out = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        for line, row in zip(out, rows, strict=True):
            line[: len(row)] = torch.tensor(row)
        return out, torch.tensor([len(row) - 1 for row in rows])


class Pairs:
    """An endless stream of rendered pictures with captions, a pure function of the seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._rng = np.random.Generator(np.random.PCG64([seed, 1]))
        self._tuples = [pretraining_tuples(one, read_card(one.key).classes) for one in FAMILIES]
        self._which = [i for i, one in enumerate(FAMILIES) for _ in range(1 + (one.name in TWICE))]
        self._count = 0
        self._batches = 0

    def batch(self, size: int) -> tuple[npt.NDArray[np.uint8], list[str], npt.NDArray[np.bool_]]:
        """(B, 48, 48, 3) pictures, B captions, and (B, B) which caption (column) is true of which picture (row)."""
        self._batches += 1
        prefixed = self._batches % PREFIX_EVERY == 0
        families = np.array(self._which)[self._rng.integers(len(self._which), size=size)]
        pictures, texts, values, stated = [], [], [], []
        for which in families:
            family, tuples = FAMILIES[which], self._tuples[which]
            place = int(self._rng.integers(len(tuples)))
            picture = key(self._seed, family.name, "pretrain", place, self._count)
            self._count += 1
            pictures.append(render(family.name, tuples[place], NEUTRAL, picture))
            longest = PREFIX_LONGEST if prefixed else 0
            caption = captions.draw(family, tuples[place], self._rng, longest)
            texts.append(caption.text)
            values.append(captions.value_index(family, tuples[place]))
            stated.append(caption.stated)
        return np.stack(pictures), texts, captions.truth(families, np.array(values), np.array(stated))


def compact_clip(rows: int) -> CLIP:
    """open_clip's CLIP with a token table of ``rows`` rows, all else as in the shipped config."""
    text_cfg = {**MODEL_CFG["text_cfg"], "vocab_size": rows}
    return open_clip.model.CLIP(MODEL_CFG["embed_dim"], MODEL_CFG["vision_cfg"], text_cfg)


def encode_text(model: CLIP, rows: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """(B, D) unit text features; only the first L positions are computed, which causality makes exact."""
    length = rows.shape[1]
    x = model.token_embedding(rows) + model.positional_embedding[:length]
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    x = model.ln_final(x[torch.arange(len(x)), ends]) @ model.text_projection
    return functional.normalize(x, dim=-1)


def contrast(image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Symmetric cross-entropy in which a caption that is true of another picture counts neither for nor against.

    Args:
        image, text: (B, D) unit features.
        scale: factor on the cosines.
        true: (B, B) which caption (column) is true of which picture (row).
    """
    masked = true & ~torch.eye(len(true), dtype=torch.bool)
    logits = (scale * image @ text.T).masked_fill(masked, -math.inf)
    target = torch.arange(len(logits))
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


def _optimizer(model: CLIP) -> torch.optim.AdamW:
    """Weight decay on the matrices of the blocks only."""
    named = dict(model.named_parameters())
    free = ("embedding", "logit_scale", "bias", "ln_")
    plain = [p for name, p in named.items() if p.ndim < 2 or any(word in name for word in free)]
    chosen = {id(p) for p in plain}
    decayed = [p for p in named.values() if id(p) not in chosen]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=LR, betas=BETAS)


def _rate(step: int, steps: int) -> float:
    if step < WARMUP:
        return (step + 1) / WARMUP
    along = (step - WARMUP) / max(1, steps - WARMUP)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * along))


def train(seed: int, steps: int = STEPS, batch: int = BATCH) -> tuple[CLIP, Reader]:
    """Pretrain for a fixed number of steps (never by the clock, so that a rerun does the same).

    Args:
        seed: decides initialisation, pictures and captions.
        steps: number of updates.
        batch: pairs per update.
    """
    torch.manual_seed(seed)
    reader, stream = Reader(), Pairs(seed)
    model = compact_clip(len(reader.index))
    model.train()
    optimizer = _optimizer(model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    started, hits = time.perf_counter(), 0.0
    for step in range(1, steps + 1):
        pictures, texts, true = stream.batch(batch)
        image = functional.normalize(model.visual(pixels(pictures)), dim=-1)
        text = encode_text(model, *reader.batch(texts))
        truth = torch.from_numpy(true)
        loss = contrast(image, text, model.logit_scale.exp().clamp(max=MAX_SCALE), truth)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        schedule.step()
        # In-batch: the best caption is one that is true of the picture.
        best = (image @ text.T).argmax(1)
        hits += truth[torch.arange(batch), best].float().mean().item()
        if step % 50 == 0 or step == steps:
            seconds = time.perf_counter() - started
            done = step % 50 or 50
            print(
                f"step {step}/{steps} loss {loss.item():.3f} in-batch {100 * hits / done:.1f} "
                f"scale {model.logit_scale.exp().item():.1f} {step * batch / seconds:.0f} pairs/s "
                f"{seconds / step * (steps - step):.0f} s left",
                flush=True,
            )
            hits = 0.0
    model.eval()
    return model, reader


def main() -> None:
    """Train, write the file, run the gates."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=PATH, help="file to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--split", choices=("val", "test"), default="test", help="pictures of the gates; val to design")
    arguments = parser.parse_args()
    wall, cpu = time.perf_counter(), time.process_time()
    model, reader = train(arguments.seed, arguments.steps)
    state = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    notes = {"seed": str(arguments.seed), "steps": str(arguments.steps), "batch": str(BATCH)}
    save_weights(state, reader.index, arguments.out, notes)
    print(
        f"wrote {arguments.out}: {time.perf_counter() - wall:.0f} s wall, {time.process_time() - cpu:.0f} s CPU",
        flush=True,
    )
    from tools.mini import gates

    raise SystemExit(gates.main(["--weights", str(arguments.out), "--split", arguments.split]))


if __name__ == "__main__":
    main()
