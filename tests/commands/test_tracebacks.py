"""A fault of ours inside a command keeps its traceback: no command makes a sentence of what it does not know."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipbench.commands import COMMANDS, LIGHTNING, main

FIT = ["--config", "clipfit", "--data.dataset", "mini/dtd", "--data.shots", "1", "--trainer.max_epochs", "1"]
QUIET = [
    "--trainer.logger",
    "false",
    "--trainer.enable_progress_bar",
    "false",
    "--trainer.enable_checkpointing",
    "false",
]
GRID = ["--datasets", "dtd", "--seeds", "1", "--shots", "1"]
INSIDE = {  # the words of a call, and what is broken inside it
    "list": (["methods"], "clipbench.recipes.recipe.Recipe.parameters"),
    "show": (["params", "--config", "clipfit"], "clipbench.methods.clipfit.CLIPFit.build"),
    "data": (["draw", "mini/dtd"], "clipbench.data.draw.draw_listing"),
    "table": ([], "clipbench.records.store.RecordStore.__init__"),
    "bench": (["-m", "clipfit", *GRID], "clipbench.bench.identity.DataFingerprints.of"),
    "study": (["clipfit_parts"], "clipbench.bench.identity.DataFingerprints.of"),
    "analyze": (["changes", "--config", "clipfit", *GRID], "clipbench.bench.identity.DataFingerprints.of"),
    "predict": (["{image}", "--weights", "{weights}"], "clipbench.methods.clipfit.CLIPFit.image_features"),
    "fit": ([*FIT, *QUIET], "clipbench.methods.clipfit.CLIPFit.losses"),
    "validate": ([*FIT, *QUIET, "--weights", "{weights}"], "clipbench.methods.clipfit.CLIPFit.image_features"),
    "test": ([*FIT, *QUIET, "--weights", "{weights}"], "clipbench.methods.clipfit.CLIPFit.image_features"),
}


class OurFaultError(Exception):
    """Nobody catches it by its name."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from PIL import Image

    from clipbench.data.module import FewShotDataModule
    from clipbench.methods.clipfit import CLIPFit

    folder = tmp_path_factory.mktemp("files")
    Image.new("RGB", (40, 40), (20, 200, 30)).save(folder / "a.png")
    method = CLIPFit(template_set="clipfit")
    method.setup(task=FewShotDataModule("mini/dtd", shots=1).task)
    method.has_learned = True
    method.save(folder / "weights.safetensors", "clipfit")
    return {"image": folder / "a.png", "weights": folder / "weights.safetensors"}


@pytest.mark.parametrize("command", INSIDE)
def test_a_fault_of_ours_keeps_its_traceback(
    command: str, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*args: object, **named: object) -> None:
        raise OurFaultError

    words, place = INSIDE[command]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(place, property(broken) if place.endswith(".parameters") else broken)
    with pytest.raises(OurFaultError) as fault:
        main([command, *(word.format(**files) for word in words)])
    assert fault.traceback[-1].name == "broken"


def test_every_command_is_tried() -> None:
    assert set(INSIDE) == {*COMMANDS, *LIGHTNING}
