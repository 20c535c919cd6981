"""What a setting is chosen by: folds that hold out every image once, and what the record says of them."""

from __future__ import annotations

import numpy as np

from clipbench.tuning.folds import HeldOut, folds_of


def test_folds() -> None:
    assert folds_of(np.array([0, 1, 0, 1, 0, 1, 0])).tolist() == [0, 0, 1, 1, 2, 2, 0]
    assert folds_of(np.repeat([0, 1], 6)).tolist() == [0, 1, 2, 3, 0, 1] * 2
    assert folds_of(np.array([0, 0, 1])).max() == 0


def test_without_a_val_draw_every_train_image_is_held_out_once() -> None:
    labels = np.array([0, 1, 0, 1, 0, 1, 0])
    held_out = HeldOut.of(labels, val=0)
    assert np.stack(held_out.folds).sum(axis=0).tolist() == [1] * 7
    assert held_out.diagnostics(5) == {
        "chosen_by": "cross-validation with 3 folds inside the train draw", "correct": 5, "total": 7,
        "val_accuracy": 100 * 5 / 7,
    }  # fmt: skip


def test_the_val_draw_counts_where_there_is_one() -> None:
    held_out = HeldOut.of(np.array([0, 1]), val=3)
    assert (held_out.by, held_out.total, held_out.folds) == ("val draw", 3, ())


def test_one_image_in_a_class_leaves_nothing_to_choose_by() -> None:
    held_out = HeldOut.of(np.array([0, 0, 1]), val=0)
    assert (held_out.total, held_out.folds) == (0, ())
    assert held_out.diagnostics() == {"chosen_by": "nothing: one image in a class and no val draw"}
