"""`linear_probe` against KaiyangZhou/CoOp `lpclip/linear_probe.py`: the whole script, on features of the tiny CLIP.

It draws 1 to 16 images a class with two seeds, searches C for each draw and tests; what it fits is noted. Ours fits the
same draws at every C that it tried, and searches by itself. Features are float64, as ours are.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import os
import runpy
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from sklearn import linear_model
from torch import Tensor

from clipbench.methods.linear_probe import Probe, choose_log10_c, fit_probe
from clipbench.tuning.folds import Array
from tools.agreement.compare import Measured, our_method, run
from tools.agreement.tiny import BASE, SIZE, write_tiny

PARTS = {"train": 16, "val": 8, "test": 20}  # images a class


class Noted(linear_model.LogisticRegression):
    """The official estimator, which remembers what it was fitted on and what it was asked."""

    fits: list[Noted] = []  # noqa: RUF012 - of one script

    def fit(self, features: Array, labels: Array) -> Noted:  # type: ignore[override]
        """As every one."""
        self.seen, self.asked = (features, labels), list[Array]()
        self.fits.append(self)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of newer versions of scikit-learn
            super().fit(features, labels)
        return self

    def predict(self, features: Array) -> Array:
        """As every one."""
        self.asked.append(features)
        return np.asarray(super().predict(features))


def write_features(method: Any, folder: Path) -> None:
    """Features of noisy images around one of each class."""
    generator = torch.Generator().manual_seed(3)
    centres = torch.randn((len(BASE), 3, SIZE, SIZE), generator=generator)
    for part, count in PARTS.items():
        labels = torch.arange(len(BASE)).repeat_interleave(count)
        noise = torch.randn((len(labels), 3, SIZE, SIZE), generator=generator)
        with torch.no_grad():
            features: Tensor = method.image_features(centres[labels] + 4 * noise)
        np.savez(folder / f"{part}.npz", feature_list=features.double().numpy(), label_list=labels.numpy())


def official_fits(script: Path, scratch: Path) -> Iterator[list[Noted]]:
    """What the script fitted, draw by draw; the last of a draw that saw test images is its outcome."""
    Noted.fits.clear()
    words = ["linear_probe", "--dataset", "tiny", "--feature_dir", "features", "--num_run", "2"]
    before = Path.cwd()
    with (
        mock.patch.object(linear_model, "LogisticRegression", Noted),
        mock.patch.object(sys, "argv", words),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        os.chdir(scratch)  # where it writes its report
        try:
            runpy.run_path(str(script), run_name="__main__")
        finally:
            os.chdir(before)
    for _, fits in itertools.groupby(Noted.fits, key=lambda fit: id(fit.seen[0])):
        yield list(fits)


def measure(checkout: Path, scratch: Path) -> Measured:
    """Both sides on the tiny CLIP, for every draw."""
    found, method = Measured(), our_method("linear_probe", write_tiny(scratch / "tiny")).eval()
    folder = scratch / "features" / "tiny"
    folder.mkdir(parents=True)
    write_features(method, folder)
    script = (checkout / "lpclip" / "linear_probe.py").resolve()
    fits, chosen = 0, list[float]()
    for tried in official_fits(script, scratch):
        for fit in tried:
            see(found, "logits", fit_probe(*fit.seen, len(BASE), math.log10(fit.C)), fit, fit.seen[0])
        outcome = next(fit for fit in reversed(tried) if len(fit.asked) > 1)  # which was also asked for test images
        log10_c = choose_log10_c(partial(correct, tried[0]))
        probe = fit_probe(*outcome.seen, len(BASE), log10_c)
        found.see("tensors", torch.from_numpy(probe.weight), torch.from_numpy(outcome.coef_))
        see(found, "base", probe, outcome, outcome.asked[-1])
        fits += len(tried)
        chosen.append(log10_c)
        if abs(log10_c - math.log10(outcome.C)) > 1e-9:
            raise SystemExit(f"ours chose log10 C {log10_c}, the script {math.log10(outcome.C)}")
    found.notes.append(
        f"{fits} fits in {len(chosen)} draws of 1 to 16 images a class, C the same in each draw ({len(set(chosen))} "
        "values)"
    )
    return found


def correct(fit: Noted, log10_c: float) -> int:
    """How many val images, drawn class by class, ours gets right from the same train images."""
    val = fit.asked[0]
    labels = np.repeat(np.arange(len(BASE)), len(val) // len(BASE))
    return int((fit_probe(*fit.seen, len(BASE), log10_c).predict(val) == labels).sum())


def see(found: Measured, kind: str, probe: Probe, fit: Noted, features: Array) -> None:
    """Take in the logits of a probe on both sides."""
    ours = features @ probe.weight.T + probe.bias
    found.see(kind, torch.from_numpy(ours), torch.from_numpy(fit.decision_function(features)))


if __name__ == "__main__":
    differences = (
        "logits are those of every C that was tried, tensors those of the chosen C; features in float64; where there "
        "is no val draw, cross-validation inside the train draw; zero-shot for novel classes"
    )
    run("linear_probe", "KaiyangZhou/CoOp", differences, measure)
