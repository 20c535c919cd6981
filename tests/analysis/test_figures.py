"""Figures: every group and tensor is drawn, in grey, and the same numbers give the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from clipbench.analysis import figures
from clipbench.analysis.rows import framed
from clipbench.report.drawing import save_figure
from tests.analysis.frames import BIASES, NORMS, changes

FRAME = framed(
    changes(
        {
            "a": dict(zip(BIASES + NORMS, [8.0, 4.0, 2.0, 1.0, 99.0, 3.0, 1.0, 2.0], strict=True)),
            "b": dict(zip(BIASES + NORMS, [4.0, 2.0, 2.0, 1.0, 90.0, 3.0, 1.0, 2.0], strict=True)),
        }
    )
)
FEATURES = pd.DataFrame(
    {
        "dataset": ["dtd", "dtd", "eurosat", "eurosat"],
        "split": ["base", "novel"] * 2,
        "text_cosine": [1.0, 0.99, 0.98, 0.97],
        "image_cosine": [0.9, 0.8, 0.7, None],
    }
)


def grey(drawn: Figure) -> bool:
    drawn.canvas.draw()
    pixels = np.asarray(drawn.canvas.buffer_rgba())[..., :3].astype(int)  # type: ignore[attr-defined]
    return bool(np.ptp(pixels, axis=-1).max() == 0)


def test_layers_show_every_group_and_quantity_against_depth() -> None:
    drawn = figures.layers_figure(FRAME, "a note")
    titles = [axes.get_title() for axes in drawn.axes]
    assert len(titles) == 6
    assert titles[0] == "text MLP bias: sum of squared differences"
    line = drawn.axes[0].containers[0].lines[0]
    assert list(line.get_xdata()) == [0.5, 1.5, 2.5, 3.5]
    assert list(line.get_ydata()) == [6.0, 3.0, 2.0, 1.0]
    assert drawn.axes[3].get_yscale() == "log", "one norm is far above the others"
    assert drawn.axes[0].get_yscale() == "linear"
    places = [float(x) for box in drawn.axes[3].containers for x in box.lines[0].get_xdata()]
    assert places == [-1, 0, 0.5, 4], "in front of the blocks, in the block, behind all blocks"
    assert len({box.lines[0].get_marker() for box in drawn.axes[3].containers}) == 4
    assert drawn.get_supxlabel() == "a note"
    assert grey(drawn)


def test_training_shows_a_line_per_tensor_from_start_to_end() -> None:
    drawn = figures.training_figure(FRAME)
    assert len(drawn.axes) == 6
    lines = drawn.axes[0].lines
    assert len(lines) == 4
    assert np.asarray(lines[0].get_ydata())[[0, 20, 40]] == pytest.approx([0, 6 / 2 / 8, 6 / 8])
    rate = np.asarray(drawn.axes[2].lines[0].get_ydata())
    assert rate == pytest.approx(np.full(41, 6.0)), "squares per step between two records"
    assert len({line.get_linestyle() for line in lines}) == 4
    assert grey(drawn)


def test_end_states_without_steps_have_a_figure() -> None:
    ends = FRAME[FRAME["step"] == 4].drop(columns=["step", "steps", "path_length", "gradient_squares"])
    assert len(figures.layers_figure(ends).axes) == 4


def test_features_are_shown_by_dataset_and_split() -> None:
    drawn = figures.features_figure(FEATURES)
    text = drawn.axes[0].containers
    assert [box.get_label() for box in text] == ["base", "novel"]
    assert list(text[1].lines[0].get_xdata()) == pytest.approx([0.01, 0.03])
    assert grey(drawn)


def test_what_is_not_known_leaves_its_panel_empty() -> None:
    drawn = figures.features_figure(FEATURES.assign(text_cosine=None))
    drawn.canvas.draw()
    no_gradients = FRAME.assign(gradient_cosine=None, gradient_squares=None)
    panel = figures.training_figure(no_gradients).axes[1]
    assert [text.get_text() for text in panel.texts] == ["no gradients of their own"]


def test_the_same_numbers_give_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        files = save_figure(figures.layers_figure(FRAME), tmp_path / folder / "changes")
    assert {ending: path.name for ending, path in files.items()} == {"png": "changes.png", "pdf": "changes.pdf"}
    for path in files.values():
        assert path.read_bytes() == (tmp_path / "one" / path.name).read_bytes()
