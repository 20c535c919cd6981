"""`fit`, `test` and `validate` as a user types them: what is refused, what a fit leaves, what it says at its end."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from clipbench import FewShotDataModule, atomic
from clipbench.commands import main
from clipbench.methods.weights_file import read_header

Call = Callable[..., tuple[int, list[str], str]]
QUIET = [
    "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false", "--trainer.logger", "false",
]  # fmt: skip
ONE = ["--trainer.max_epochs", "1", "--data.shots", "2", *QUIET]
OWN = ["--data", "ImageFolder", "--data.root", "shapes", "--backbone", "local-dir:small"]
LINE = re.compile(r"(test/\w+|val/accuracy) +(\d+\.\d\d) %  \((\d+) of (\d+)(, a part of \d+)?\).*")


@pytest.fixture(scope="module")
def made(own_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, a backbone and a fit of CLIPFit with its checkpoint."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(own_images, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["fit", "--config", "clipfit", *OWN, *ONE]) == 0
    return folder


@pytest.fixture
def call(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Type a command in a copy of that folder: its status, lines and errors."""
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")

    def typed(*words: str) -> tuple[int, list[str], str]:
        capsys.readouterr()
        status = main(list(words))
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return status, said.out.splitlines(), said.err

    return typed


def accuracies(lines: list[str]) -> list[str]:
    found = [line for line in lines if LINE.fullmatch(line)]
    for line in found:
        _, percent, right, total, _ = LINE.fullmatch(line).groups()  # type: ignore[union-attr]
        assert percent == f"{100 * int(right) / int(total):.2f}"
    return found


def test_a_fit_says_how_good_it_is_and_what_to_type(call: Call) -> None:
    status, lines, _ = call("fit", "--config", "clipfit", *OWN, *ONE)
    assert status == 0
    assert [line.split()[0] for line in accuracies(lines)] == ["test/base", "test/novel"]
    for line in lines[-2:]:
        _, _, words = line.partition("clipbench ")
        words = words.replace("IMAGES", "shapes/test/red/0.png")
        status, again, _ = call(*words.split(), *(QUIET if words.startswith("test") else []))
        assert status == 0
        assert not accuracies(again) or accuracies(again) == accuracies(lines)


def test_no_fit_writes_into_the_folder_of_another(call: Call) -> None:
    first = {path: path.read_bytes() for path in (Path("weights.safetensors"), Path("config.yaml"))}
    for number in (2, 3):
        status, lines, _ = call("fit", "--config", "clipfit", *OWN, *ONE, "--model.lr", "0.3")
        assert status == 0
        assert f"numbers: fit_{number}/weights.safetensors" in lines[0]
        saved = yaml.safe_load(Path(f"fit_{number}/config.yaml").read_text())
        assert saved["model"]["init_args"]["lr"] == 0.3
    assert all(path.read_bytes() == content for path, content in first.items())
    twins = [Path(f"fit_{number}/weights.safetensors").read_bytes() for number in (2, 3)]
    assert twins[0] == twins[1]


def test_a_saved_config_states_the_augmentation_that_acted(call: Call) -> None:
    words = [*ONE, "--trainer.limit_test_batches", "0"]
    status, _, _ = call("fit", "--config", "zero_shot", "--data.dataset", "mini/dtd", *words)
    assert status == 0

    saved = yaml.safe_load(Path("fit_2/config.yaml").read_text())["data"]["init_args"]
    acted = FewShotDataModule("mini/dtd").augmentation
    assert {name: saved[name] for name in acted} == acted


@pytest.mark.parametrize("command", ["test", "validate"])
@pytest.mark.parametrize("recipe", ["clipfit", "linear_probe", "mft"])
def test_what_was_never_learned_is_not_measured(call: Call, command: str, recipe: str) -> None:
    status, lines, error = call(command, "--config", recipe, "--data.dataset", "mini/dtd", *QUIET)
    assert status != 0
    assert not lines
    assert "untrained: add --weights FILE" in error


@pytest.mark.parametrize("command", ["test", "validate"])
def test_a_method_that_trains_nothing_is_measured(call: Call, command: str) -> None:
    status, lines, _ = call(command, "--config", "zero_shot", *OWN, *QUIET)
    assert status == 0
    assert len(accuracies(lines)) == (2 if command == "test" else 1)


def test_validate_without_val_images_says_so(call: Call) -> None:
    shutil.rmtree("shapes/val")
    for words in (["--weights", "weights.safetensors"], ["--config", "zero_shot", *OWN]):
        status, lines, error = call("validate", *words, *QUIET)
        assert (status, lines) == (1, [])
        assert "has no val images" in error


@pytest.mark.parametrize(("parts", "says"), [(("train", "val"), "val/accuracy"), (("train",), "neither test nor val")])
def test_a_fit_measures_on_what_the_data_has(call: Call, parts: tuple[str, ...], says: str) -> None:
    classes = sorted(path.name for path in Path("shapes/train").iterdir())
    rows = [f"shapes/{part}/{name}/0.png,{classes.index(name)},{name},{part}" for part in parts for name in classes]
    Path("list.csv").write_text("\n".join(["path,label,classname,split", *rows]))
    data = ["--data", "Manifest", "--data.path", "list.csv", "--backbone", "local-dir:small"]
    status, lines, error = call("fit", "--config", "clipfit", *data, *ONE)
    assert status == 0, error
    assert [says in line for line in lines] == [False, True, False, False]


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        (["--trainer.limit_train_batches", "0"], "nothing was learned: the fit saw no batch"),
        (["--trainer.max_epochs", "0"], "max_epochs"),
        (["--model.lr", "1e30", "--trainer.max_epochs", "2"], "not finite"),
    ],
)
def test_no_weights_are_left_where_nothing_was_learned(call: Call, setting: list[str], says: str) -> None:
    Path("weights.safetensors").unlink()
    status, lines, error = call("fit", "--config", "clipfit", *OWN, *ONE, *setting)
    assert status != 0
    assert says in error
    assert not [line for line in lines if "learned" in line]
    assert not list(Path().rglob("*.safetensors")) or set(Path().rglob("*.safetensors")) == set(
        Path("small").glob("*.safetensors")
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--config", "clipfit", "--trainer.max_epochs", "-1"], "the schedule spans it; it is -1"),
        (["--config", "clipfit", "--trainer.max_epochs", "0"], "max_epochs"),
        (
            ["--config", "ramt", "--model.lr", "0.1", "--trainer.accumulate_grad_batches", "2"],
            "accumulate_grad_batches must be 1",
        ),
        (["--config", "clipfit", "--data.root", "elsewhere"], "elsewhere"),
    ],
)
@pytest.mark.parametrize("place", ["lightning_logs", "of/its/own", "."])
def test_a_refused_fit_leaves_nothing(call: Call, words: list[str], says: str, place: str) -> None:
    where = {
        "lightning_logs": [], "of/its/own": ["--trainer.default_root_dir", place], ".": ["--trainer.logger", "false"]
    }[place]  # fmt: skip
    before = sorted(Path().rglob("*"))
    status, _, errors = call("fit", *OWN, *QUIET[:4], *where, *words)
    assert status != 0
    assert says in errors
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("file/x", "a file stands where a folder is needed"), ("file", "a file stands where a folder is needed"),
        ("x" * 300, "File name too long"), ("/proc", "No such file or directory"), ("loop/x", "Too many levels"),
    ],
)  # fmt: skip
def test_a_fit_whose_place_cannot_be_written_is_refused_at_once(call: Call, place: str, why: str) -> None:
    Path("file").touch()
    Path("loop").symlink_to("loop")
    words = ["--config", "clipfit", *OWN, *QUIET[:4], "--trainer.default_root_dir", place]
    status, _, errors = call("fit", *words)
    assert status == 1
    assert "cannot write anything in " in errors
    assert why in errors
    assert errors.endswith("name another place with --trainer.default_root_dir\n")


def test_what_a_killed_fit_was_writing_goes_with_the_next(call: Call) -> None:
    left = Path("lightning_logs/version_0") / f".weights.safetensors.{atomic._machine()}-999999999-abcdef.tmp"
    left.parent.mkdir(parents=True)
    left.touch()
    assert call("fit", "--config", "clipfit", *OWN, *QUIET[:4], "--trainer.max_epochs", "1")[0] == 0
    assert not left.exists()
    assert left.parent.exists()


def test_a_try_leaves_nothing(call: Call) -> None:
    before = set(Path().rglob("*"))
    status, lines, _ = call("fit", "--config", "clipfit", *OWN, *ONE, "--trainer.fast_dev_run", "true")
    assert status == 0
    assert "nothing is kept" in lines[0]
    assert {path for path in Path().rglob("*") if path.suffix in (".safetensors", ".yaml")} <= before


def test_a_part_of_the_images_is_called_a_part(call: Call) -> None:
    words = ["test", "--weights", "weights.safetensors", "--data.test_batch_size", "2", *QUIET]
    status, lines, _ = call(*words, "--trainer.limit_test_batches", "1")
    assert status == 0
    assert all("of 2, a part of 12)" in line for line in accuracies(lines))
    status, lines, _ = call(*words, "--trainer.limit_test_batches", "0")
    assert "not measured: no batch was run" in lines[1]


def test_weights_learned_elsewhere_need_no_config(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = Path("weights.safetensors")
    _, here, _ = call("test", "--weights", str(weights), *QUIET)
    Path("else").mkdir()
    for source, name in (("small", "moved"), ("shapes", "pictures")):
        Path(source).rename(f"else/{name}")
    shutil.copy(weights, "else/w.safetensors")
    monkeypatch.chdir("else")
    status, _, error = call("test", "--weights", "w.safetensors", *QUIET)
    assert status == 2
    assert "--data.root FOLDER" in error
    status, _, error = call("test", "--weights", "w.safetensors", "--data.root", "pictures", *QUIET)
    assert status == 1
    assert "--backbone" in error
    moved = ["--weights", "w.safetensors", "--backbone", "local-dir:moved"]
    status, there, _ = call("test", *moved, "--data.root", "pictures", *QUIET)
    assert status == 0
    assert accuracies(there) == accuracies(here)
    assert len(accuracies(there)) == 2
    status, lines, _ = call("predict", "pictures/test/red/0.png", *moved)
    assert status == 0
    assert set(re.findall(r"([a-z]+) \d", lines[0])) <= {"black", "blue", "green", "red", "white"}
    words = ["fit", "--config", "clipfit", "--data", "ImageFolder", "--data.root", "pictures", *ONE]
    status, _, _ = call(*words, "--backbone", "local-dir:moved")
    assert status == 0
    headers = [read_header(Path(name)) for name in ("w.safetensors", "weights.safetensors")]
    assert headers[0].backbone_hash == headers[1].backbone_hash


def test_settings_are_those_that_were_learned_with(call: Call) -> None:
    logger = ["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "log", *QUIET[:-2]]
    status, _, _ = call("test", "--weights", "weights.safetensors", "--config", "clipfit", *logger)
    assert status == 0
    (shown,) = Path("log").rglob("hparams.yaml")
    learned = read_header(Path("weights.safetensors")).init_args
    assert yaml.safe_load(shown.read_text())["lr"] == learned["lr"]
    for value, status in ((str(learned["lr"]), 0), (f"{learned['lr']:e}", 0), ("0.7", 2)):
        found, _, error = call("test", "--weights", "weights.safetensors", "--model.lr", value, *QUIET)
        assert found == status
        assert ("was learned with model.lr" in error) == (status == 2)


def test_trained_classes_are_never_called_novel(call: Call) -> None:
    status, lines, _ = call("fit", "--config", "clipfit", *OWN, *ONE, "--protocol", "few_shot")
    assert status == 0
    weights = "fit_2/weights.safetensors"
    status, again, _ = call("test", "--weights", weights, *QUIET)
    assert accuracies(again) == accuracies(lines)
    (checkpoint,) = set(Path("checkpoints").glob("*.ckpt")) - {Path("checkpoints/epoch=0-step=1.ckpt")} or {None}
    for source in (["--weights", weights], ["--ckpt_path", str(checkpoint)]):
        status, lines, error = call("test", *source, "--protocol", "base_to_novel", *QUIET)
        assert (status, accuracies(lines)) == (1, [])
        assert "classes of split 'novel' of 'shapes' were trained on" in error
        assert "--protocol few_shot" in error


def test_classes_that_were_not_trained_on_are_not_counted_as_trained(call: Call) -> None:
    weights = ["--weights", "weights.safetensors", *QUIET]
    status, lines, error = call("test", *weights, "--protocol", "few_shot")
    assert (status, accuracies(lines)) == (1, [])
    assert "2 of the 4 classes of split 'all' of 'shapes' were not trained on" in error
    assert "--protocol base_to_novel" in error
    for part in ("train", "val", "test"):
        shutil.copytree(f"shapes/{part}/red", f"shapes/{part}/amber")
        for number, image in enumerate(sorted(Path(f"shapes/{part}/amber").iterdir())):
            Image.new("RGB", (8, 8), (number, len(part), 9)).save(image)
    for command in ("test", "validate"):
        status, lines, error = call(command, *weights)
        assert (status, accuracies(lines)) == (1, [])
        assert "('amber' ...)" in error


def test_other_data_are_named(call: Call) -> None:
    shutil.copytree("shapes", "others")
    for part in Path("others").iterdir():
        for name in list(part.iterdir()):
            name.rename(part / f"other {name.name}")
    status, lines, _ = call("test", "--weights", "weights.safetensors", "--data.root", "others", *QUIET)
    assert status == 0
    assert lines[0].endswith("learned on 'shapes' (2 classes), measured on 'others'")


def test_a_checkpoint_says_by_itself_what_it_learned(call: Call) -> None:
    (checkpoint,) = Path("checkpoints").glob("*.ckpt")
    _, of_weights, _ = call("test", "--weights", "weights.safetensors", *QUIET)
    status, lines, error = call("test", "--ckpt_path", str(checkpoint), *QUIET)
    assert status == 0, error
    assert accuracies(lines) == accuracies(of_weights)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["--model.lr", "0.3"], "model.lr 0.002, here 0.3"),
        (["--data.shots", "1"], "data.shots 2, here 1"),
        (["--data.seed", "2"], "data.seed 1, here 2"),
        (["--data.batch_size", "3"], "data.batch_size 32, here 3"),
        (["--protocol", "few_shot"], "data.protocol base_to_novel, here few_shot"),
        (["--trainer.gradient_clip_val", "0.5"], "trainer.gradient_clip_val None, here 0.5"),
        (["--trainer.max_epochs", "3"], "span other epochs"),
        (["--model.distillation_weight", "0.5"], "model.distillation_weight 8.0, here 0.5"),
        (["--config", "coop"], "learned by CLIPFit, not by CoOp"),
        (["--weights_only", "false"], "weights_only is always true"),
    ],
)
def test_a_resume_with_other_settings_is_refused(call: Call, settings: list[str], says: str) -> None:
    (checkpoint,) = Path("checkpoints").glob("*.ckpt")
    status, lines, error = call("fit", "--config", "clipfit", *OWN, *ONE, "--ckpt_path", str(checkpoint), *settings)
    assert status != 0
    assert says in error
    assert not lines


class Runs:
    """Writes a file where it is unpickled."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("mark"),)


def damaged(stored: dict[str, Any], change: str) -> Any:
    if change == "a list":
        return [1]
    if change == "no header":
        return {key: value for key, value in stored.items() if key != "clipbench"}
    if change == "a header of numbers":
        return stored | {"clipbench": {"header": {"method": 5}, "span": {}}}
    if change == "no optimiser":
        return {key: value for key, value in stored.items() if key != "optimizer_states"}
    return stored | {"state_dict": {name: tensor[:1] for name, tensor in stored["state_dict"].items()}}


@pytest.mark.parametrize("command", ["fit", "test"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("cut off", "it is cut off"),
        ("empty", "it is cut off"),
        ("text", "nothing is ever run"),
        ("an image", "nothing is ever run"),
        ("weights", "nothing is ever run"),
        ("code", "nothing is ever run"),
        ("a list", "it holds list"),
        ("no header", "says not whose it is"),
        ("a header of numbers", "is damaged"),
        ("no optimiser", "it holds no optimizer_states"),
        ("other shapes", "do not fit"),
    ],
)
def test_checkpoints_that_are_none_of_ours(call: Call, command: str, change: str, says: str) -> None:
    (checkpoint,) = Path("checkpoints").glob("*.ckpt")
    content = checkpoint.read_bytes()
    if change == "an image":
        Image.new("RGB", (4, 4)).save("x.png")
        content = Path("x.png").read_bytes()
    plain = {"cut off": content[: len(content) // 2], "empty": b"", "text": b"no checkpoint", "an image": content}
    plain["weights"] = Path("weights.safetensors").read_bytes()
    if change == "code":
        torch.save(Runs(), checkpoint)
    elif change in plain:
        checkpoint.write_bytes(plain[change])
    else:
        torch.save(damaged(torch.load(checkpoint, weights_only=True), change), checkpoint)
    words = ["--config", "clipfit", *OWN, *ONE] if command == "fit" else QUIET
    status, _, error = call(command, *words, "--ckpt_path", str(checkpoint))
    assert not Path("mark").exists()
    if (command, change) == ("test", "no optimiser"):
        assert status == 0
    else:
        assert status == 1
        assert says in error
        assert len(error.splitlines()) <= 2  # fit says what it found before


def test_two_sources_are_one_too_many(call: Call) -> None:
    status, _, error = call("test", "--weights", "weights.safetensors", "--ckpt_path", "x.ckpt")
    assert status == 2
    assert "two sources" in error


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--weights", ""], "needs the name of a file"),
        (["--ckpt_path", "x" * 300], "there is no checkpoint"),
        (["--weights", "weights.safetensors", "--print_config"], "no config to print"),
        (["--weights", "weights.safetensors", "--model.nothing", "1"], "unknown setting of CLIPFit"),
        (["--weights", "weights.safetensors", "--model", "CoOp"], "learned by CLIPFit, not by CoOp"),
        (["--weights", "weights.safetensors", "--data", "Manifest"], "path"),
        (["--weights", "weights.safetensors", "--data.shots", "0"], "data.shots must be at least 1"),
        (["--weights", "weights.safetensors", "--protocol", "fewshot"], "did you mean 'few_shot'"),
        (["--weights", "weights.safetensors", "--trainer.epochs", "1"], "max_epochs"),
    ],
)
def test_wrong_words_of_a_measurement(call: Call, words: list[str], says: str) -> None:
    status, lines, error = call("test", *words)
    assert status in (1, 2)
    assert not lines
    assert says in error
    assert len(error.splitlines()) == 1
