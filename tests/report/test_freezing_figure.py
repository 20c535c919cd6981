"""The picture of what was frozen: the share over the run, and a cell for every group."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from clipbench.commands import main
from clipbench.errors import RecordError
from clipbench.records.store import write_record
from clipbench.report.freezing import OUTSIDE, STAYED, freezing_figure, write_freezing
from tests.records.records import cell, record


def group(name: str, size: int, frozen_at: int | None, tower: str | None, block: int | None) -> dict[str, Any]:
    kind = name.partition("[")[0]
    return {
        "name": name,
        "tower": tower,
        "block": block,
        "kind": kind,
        "size": size,
        "frozen_at": frozen_at,
        "drift": [],
    }


GROUPS = [
    group("attn.q_proj.weight", 100, 20, "image", 0),
    group("attn.q_proj.weight", 100, None, "image", 1),
    group("proj", 50, 40, "image", None),
    group("mlp.fc.weight[0:2]", 30, None, "text", 11),
    group("mlp.fc.weight[2:8]", 90, 60, "text", 11),
    group("context", 10, 60, None, None),
]
ACTIVE = [(0, 380, 6), (20, 280, 5), (40, 230, 4), (60, 130, 2), (80, 130, 2)]
FACTS: dict[str, Any] = {
    "mode": "corrected", "score": "paired", "steps": 80, "interval": 10, "entries": 380, "groups": GROUPS,
    "drift_steps": [], "active": [{"step": s, "entries": n, "groups": g} for s, n, g in ACTIVE],
}  # fmt: skip


@pytest.fixture
def drawn() -> Figure:
    figure = freezing_figure(FACTS, "a title")
    figure.canvas.draw()
    return figure


def test_the_share_is_drawn_in_percent(drawn: Figure) -> None:
    entries, groups = drawn.axes[0].lines
    assert list(entries.get_xdata()) == [0, 20, 40, 60, 80]
    assert list(entries.get_ydata()) == pytest.approx([100 * n / 380 for _, n, _ in ACTIVE])
    assert list(groups.get_ydata()) == pytest.approx([100 * g / 6 for _, _, g in ACTIVE])
    assert entries.get_linestyle() != groups.get_linestyle()


def test_every_group_has_a_cell_that_says_when_it_was_frozen(drawn: Figure) -> None:
    image, text, elsewhere = drawn.axes[1:]
    assert [axes.get_title() for axes in (image, text, elsewhere)] == ["image tower", "text tower", "elsewhere"]
    assert [label.get_text() for label in image.get_xticklabels()] == ["0", "1", OUTSIDE]
    assert [label.get_text() for label in image.get_yticklabels()] == ["attn.q_proj.weight", "proj"]
    cells = {text.get_position(): text.get_text() for text in image.texts}
    assert cells == {(0, 0): "20", (1, 0): STAYED, (2, 1): "40"}
    assert [text.get_text() for text in text.texts] == [f"{STAYED} 1/2"]
    shares = text.images[0].get_array()
    assert shares[0, 0] == pytest.approx((30 * 80 + 90 * 60) / 120 / 80)


def test_it_is_readable_in_grey(drawn: Figure) -> None:
    import numpy as np
    from PIL import Image

    content = io.BytesIO()
    drawn.savefig(content, format="png")
    pixels = np.asarray(Image.open(content).convert("RGB")).astype(int)
    assert np.ptp(pixels, axis=-1).max() <= 2


def test_a_record_is_drawn_as_png_and_pdf(tmp_path: Path) -> None:
    path = write_record(tmp_path, record(cell()) | {"diagnostics": {"fisher_freezing": FACTS}})
    files = write_freezing(path)
    assert {ending: file.exists() for ending, file in files.items()} == {"png": True, "pdf": True}
    again = write_freezing(path, tmp_path / "again")
    assert again["pdf"].read_bytes() == files["pdf"].read_bytes()


def test_a_record_without_freezing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no record of a run with FisherFreezing"):
        write_freezing(write_record(tmp_path, record(cell())))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ((), {}), ((), []), (("mode",), 5), (("steps",), 0), (("groups",), []), (("groups", 0, "size"), 0),
        (("groups", 0, "tower"), "x"), (("groups", 0, "block"), "a"), (("groups", 0, "frozen_at"), 0.5),
        (("active",), [{}]), (("active", 0, "step"), "0"),
    ],
)  # fmt: skip
def test_what_was_frozen_has_its_form(tmp_path: Path, place: tuple[Any, ...], value: Any) -> None:
    facts = copy.deepcopy({"of": FACTS})
    inner: Any = facts
    for step in ("of", *place)[:-1]:
        inner = inner[step]
    inner[("of", *place)[-1]] = value
    path = write_record(tmp_path, record(cell()) | {"diagnostics": {"fisher_freezing": facts["of"]}})
    with pytest.raises(RecordError, match="does not say what was frozen"):
        write_freezing(path)


def test_the_command_draws_records_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_record(tmp_path, record(cell()) | {"diagnostics": {"fisher_freezing": FACTS}})
    assert main(["analyze", "freezing", "--record", str(path), "--out", str(tmp_path / "drawn")]) == 0
    assert {Path(line).suffix for line in capsys.readouterr().out.split()} == {".png", ".pdf"}
    assert len(list((tmp_path / "drawn").iterdir())) == 2
    assert main(["analyze", "changes", "--record", str(path)]) == 2
    assert main(["analyze", "freezing", "--config", "clipfit"]) == 2
