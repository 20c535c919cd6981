"""The linear probe: its objective, how C is chosen, which images it sees, and where no class name can be read."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clipbench.bench.plan import make_plan
from clipbench.bench.run import run_cell
from clipbench.errors import UnknownName
from clipbench.methods.linear_probe import LOG10_C, LinearProbe, choose_log10_c, fit_probe
from clipbench.recipes.suites import Suite
from clipbench.testing.folders import suite_of_folder
from clipbench.testing.subject import Subject, scores


def clouds(classes: int, per_class: int = 8, dimension: int = 5) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(classes, dimension))
    labels = np.repeat(np.arange(classes), per_class)
    return centres[labels] + generator.normal(size=(len(labels), dimension)), labels


@pytest.mark.parametrize("log10_c", [-2.0, 0.0, 2.0])
@pytest.mark.parametrize("classes", [2, 4])
def test_the_probe_minimises_its_objective(classes: int, log10_c: float) -> None:
    features, labels = clouds(classes)
    x, y = torch.from_numpy(features), torch.from_numpy(labels)
    weight = torch.zeros(classes, 5, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    # for two classes scikit-learn knows one row, the difference of the two, and penalises that
    strength = 1.0 if classes == 2 else 0.5

    def objective() -> torch.Tensor:
        return 10.0**log10_c * F.cross_entropy(x @ weight.T + bias, y, reduction="sum") + strength * (weight**2).sum()

    optimiser = torch.optim.LBFGS([weight, bias], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        value = objective()
        value.backward()
        return value

    optimiser.step(closure)
    best = objective().item()
    probe = fit_probe(features, labels, classes, log10_c)
    with torch.no_grad():
        weight.copy_(torch.from_numpy(probe.weight))
        bias.copy_(torch.from_numpy(probe.bias))
    assert probe.converged
    assert best <= objective().item() + 1e-9 <= best * (1 + 1e-3) + 1e-9  # scikit-learn stops at a gradient of 1e-4


def reference_search(accuracy: Callable[[float], float]) -> float:
    """The search as the literature's code runs it, in C instead of its logarithm."""
    listed = [1e6, 1e4, 1e2, 1, 1e-2, 1e-4, 1e-6]
    best = listed[int(np.argmax([accuracy(c) for c in listed]))]
    left, right, final = best / 10, best * 10, best
    for _ in range(8):
        if accuracy(left) < accuracy(right):
            final, left, right = right, 10 ** (0.5 * (np.log10(left) + np.log10(right))), right
        else:
            final, left, right = left, left, 10 ** (0.5 * (np.log10(left) + np.log10(right)))
    return final


@pytest.mark.parametrize("peak", [-5.7, -1.2, 0.3, 1.0, 2.9, 6.6])
def test_the_search_is_the_reference_search(peak: float) -> None:
    def correct(exponent: float) -> int:
        return round(1000 - 100 * abs(exponent - peak))

    ours = choose_log10_c(correct)
    assert ours == pytest.approx(np.log10(reference_search(lambda c: correct(float(np.log10(c))))), abs=1e-9)
    assert abs(ours - peak) < 0.02


def test_of_equals_the_first_and_then_the_left_is_taken() -> None:
    tried: list[float] = []

    def correct(exponent: float) -> int:
        tried.append(exponent)
        return 7

    assert choose_log10_c(correct) == 5.0
    assert tuple(tried[: len(LOG10_C)]) == LOG10_C
    assert tried[len(LOG10_C) :: 2] == [5.0] * 8
    assert tried[len(LOG10_C) + 1 :: 2] == [5 + 2.0**-k for k in range(-1, 7)]


def test_it_sees_the_draw_once_without_augmentation_and_chooses_on_val(tmp_path: Path) -> None:
    with Subject("linear_probe", tmp_path).cli() as cli:
        method, data = cli.model, cli.datamodule
        cli.trainer.fit(method, datamodule=data)
        draw, val = list(data.draw_dataloader()), list(data.val_dataloader())
        assert torch.cat([batch.index for batch in draw]).tolist() == list(range(20))
        assert torch.equal(torch.cat([b.image for b in draw]), torch.cat([b.image for b in data.draw_dataloader()]))
        encoded = [
            method.backbone.encode_image(method.backbone.normalise(torch.cat([b.image for b in part]))).double().numpy()
            for part in (draw, val)
        ]
        labels = [torch.cat([b.label for b in part]).numpy() for part in (draw, val)]
        probe = fit_probe(encoded[0], labels[0], 5, method.diagnostics["log10_c"])
        np.testing.assert_allclose(method.trainable["weight"].detach(), probe.weight, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(method.trainable["bias"].detach(), probe.bias, rtol=1e-4, atol=1e-6)
        right = int((probe.predict(encoded[1]) == labels[1]).sum())
        assert method.diagnostics["chosen_by"] == "val draw"
        assert (method.diagnostics["correct"], method.diagnostics["total"]) == (right, len(labels[1]))
        images = method.backbone.normalise(val[0].image)
        found = scores(method, images, method.classnames).numpy()
        np.testing.assert_allclose(found, encoded[1] @ probe.weight.T + probe.bias, rtol=1e-3, atol=1e-4)


def test_another_class_is_refused_by_name(make: Callable[..., LinearProbe]) -> None:
    method = make(LinearProbe)
    with pytest.raises(UnknownName, match="did you mean 'forest'"):
        method.class_features(["forrest"])


def without_val(folder: Path) -> Suite:
    """Shapes whose names the embedded backbone does not know, as a manifest without val rows."""
    suite_of_folder(folder / "images", "mini")
    with (folder / "mine.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "classname", "split"])
        for part in ("train", "test"):
            for label, name in enumerate(["red", "green", "blue", "white"]):
                for place in sorted((folder / "images" / part / name).iterdir()):
                    writer.writerow([place.relative_to(folder), label, f"zebra {name}", part])
    section = {"class_path": "Manifest", "init_args": {"path": str(folder / "mine.csv")}}
    return Suite("mine", "mini", {"shapes": section})


def test_without_val_and_without_readable_names(tmp_path: Path) -> None:
    subject = Subject("linear_probe", tmp_path, without_val(tmp_path), "shapes")
    found = {}
    for protocol, shots in (("few_shot", 6), ("few_shot", 1), ("base_to_novel", 6)):
        request = replace(subject.request(), protocol=protocol, shots=shots)
        (planned,) = make_plan(request, tmp_path / "runs").cells
        found[protocol, shots] = run_cell(planned, tmp_path / "runs" / protocol).record
    assert found["few_shot", 6].ok, found["few_shot", 6].error
    assert found["few_shot", 6].data["diagnostics"]["chosen_by"].startswith("cross-validation with 4 folds")
    assert found["few_shot", 6].data["diagnostics"]["total"] == 24
    assert found["few_shot", 1].data["diagnostics"]["chosen_by"].startswith("nothing")
    assert found["few_shot", 1].data["diagnostics"]["log10_c"] == 0
    assert "zebra" in found["base_to_novel", 6].error
