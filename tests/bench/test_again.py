"""A record is enough to compute its cell again; what is other is said, and nothing that it names is run."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from clipbench.bench.again import compared
from clipbench.commands import main
from clipbench.recipes.settings import OF_CLASSES
from clipbench.records.correctness import pack_bits, unpack_bits
from clipbench.records.store import Record, read_record
from tests.records.records import failed
from tests.records.records import record as made

SHIPPED = Path(__file__).resolve().parents[2] / "results" / "mini" / "records"
EARLIER = Path(__file__).resolve().parents[1] / "records" / "earlier"  # dtd, seed 2, as clipbench 0.1.0 wrote them
GRID = ["--datasets", "dtd", "--seeds", "1", "--shots", "1", "--jobs", "1", "--results", "runs"]
Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of zero-shot, and of a fit with a setting of the user's."""
    folder = tmp_path_factory.mktemp("computed")
    words = ["--results", str(folder)]
    assert main(["bench", "-m", "zero_shot", *GRID[:-2], *words]) == 0
    assert main(["bench", "-m", "coop", "--set", "trainer.max_epochs=1", *GRID[:-2], *words]) == 0
    return folder


def record_of(folder: Path, recipe: str) -> Path:
    (path,) = folder.rglob(f"records/{recipe}-dtd-*.json")
    return path


@pytest.mark.parametrize("recipe", ["zero_shot", "coop"])
def test_a_record_is_computed_again_and_is_equal(computed: Path, tmp_path: Path, capsys: Said, recipe: str) -> None:
    path = record_of(computed, recipe)
    before = path.read_bytes()
    assert main(["bench", "--record", str(path), "--results", str(tmp_path / "again")]) == 0
    said = capsys.readouterr().out
    assert "the same, image by image" in said
    assert f"equal: {recipe} on dtd, 1 shots, seed 1" in said
    assert "other now" not in said
    new = record_of(tmp_path / "again", recipe)
    assert new.name == path.name, "the same key"
    ours, theirs = read_record(new).data, read_record(path).data
    assert ours["provenance"] == theirs["provenance"], "and the same row of a table"
    assert ours["splits"] == theirs["splits"]
    assert path.read_bytes() == before


@pytest.mark.slow
def test_what_starts_from_another_is_computed_after_it(tmp_path: Path, capsys: Said) -> None:
    assert main(["bench", "-m", "wise_ft", *GRID[:-2], "--results", str(tmp_path)]) == 0
    assert main(["bench", "--record", str(record_of(tmp_path, "wise_ft"))]) == 0
    said = capsys.readouterr().out
    assert "[1/2] full dtd seed 1" in said
    assert "equal: wise_ft on dtd" in said


def test_without_a_folder_nothing_is_kept(computed: Path, tmp_path: Path, monkeypatch: Any, capsys: Said) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "--record", str(record_of(computed, "zero_shot"))]) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_record_of_an_earlier_schema_is_computed_again(tmp_path: Path, capsys: Said) -> None:
    assert main(["bench", "--record", str(EARLIER / "zero_shot.jsonl.gz"), "--results", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "other now: clipbench 0.2.0, was 0.1.0" in said
    assert "NOT equal" not in said


SOME = ("linear_probe", "mft_soft", "wise_ft")  # called otherwise today; nothing read; starts from another
ALL = [
    path if path.name.partition(".")[0] in SOME else pytest.param(path, marks=pytest.mark.slow)
    for folder in (SHIPPED, EARLIER)
    for path in sorted(folder.glob("*.jsonl.gz"))
]


@pytest.mark.parametrize("path", ALL, ids=lambda path: f"{path.parent.name}-{path.name.partition('.')[0]}")
def test_every_kept_recipe_is_planned_with_the_settings_that_it_had(path: Path, capsys: Said) -> None:
    assert main(["bench", "--record", str(path), "--datasets", "dtd", "--seeds", "2", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "other now: setting" not in said
    assert "data:" not in said
    assert "augmentation" not in said
    assert "templates" not in said


def test_other_answers_are_status_1_and_say_which(computed: Path, tmp_path: Path, capsys: Said) -> None:
    data = json.loads(record_of(computed, "zero_shot").read_text())
    base = data["splits"]["base"]
    bits = unpack_bits(base["bitmap"], base["total"])
    bits[0] = not bits[0]
    base |= {"bitmap": pack_bits(bits), "correct": int(bits.sum())}
    (tmp_path / "other.json").write_text(json.dumps(data))
    assert main(["bench", "--record", str(tmp_path / "other.json")]) == 1
    said = capsys.readouterr().out
    assert "1 images are answered otherwise" in said
    assert "NOT equal" in said
    assert said.count("the same, image by image") == 2  # novel, and over all classes at once


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"versions": {"data": 7, "backbone": 1, "method": 1, "protocol": 1}}, ", was 7"),
        ({"code": {"x.py": "1" * 64}}, "code of x.py is not there, was 111111111111"),
        ({"backbone_hash": "2" * 64}, "backbone (hash) 6408c5cdba92, was 222222222222"),
        ({"split_hash": "3" * 64}, "data: split (hash)"),
        ({"draw_digest": "4" * 64}, "data: draw (digest)"),
        ({"files_digest": "5" * 16}, "data: files (digest)"),
        ({"precision": "bf16-mixed"}, "precision 32-true, was bf16-mixed"),
        ({"templates": ["a {}."]}, "templates"),
        ({"augmentation": {"flip": 0.0}}, "augmentation"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_other_is_said_before_anything_runs(
    computed: Path, tmp_path: Path, capsys: Said, change: dict[str, Any], said: str
) -> None:
    data = json.loads(record_of(computed, "zero_shot").read_text())
    data["provenance"] |= change
    data["environment"]["torch"] = "1.0"
    (tmp_path / "other.json").write_text(json.dumps(data))
    assert main(["bench", "--record", str(tmp_path / "other.json"), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert said in shown
    assert "other now: torch" in shown
    assert not list(tmp_path.rglob("records"))


def test_a_record_whose_key_is_not_of_what_it_states_is_told(computed: Path, tmp_path: Path, capsys: Said) -> None:
    for change in ({"key": "0" * 64}, {"cell": {"dataset": "eurosat"}}):
        data = json.loads(record_of(computed, "zero_shot").read_text())
        for name, value in change.items():
            data[name] = data[name] | value if isinstance(value, dict) else value
        (tmp_path / "other.json").write_text(json.dumps(data))
        assert main(["bench", "--record", str(tmp_path / "other.json"), "--dry-run"]) == 0
        assert "nothing else that the record states differs" in capsys.readouterr().out
    assert main(["bench", "--record", str(record_of(computed, "zero_shot")), "--dry-run"]) == 0
    assert "other now" not in capsys.readouterr().out


def test_learned_weights_are_compared_where_the_record_knows_them() -> None:
    one, other = made(weights={"sha256": "a" * 64}), made(weights={"sha256": "b" * 64})
    assert compared(Record(one), Record(one))[1]
    lines, same = compared(Record(one), Record(other))
    assert not same
    assert "learned weights: other bytes" in lines
    assert compared(Record(made()), Record(other))[1], "nothing is known of them"


def edited(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def run(data: dict[str, Any]) -> dict[str, Any]:
        other = change(data)
        return other if isinstance(other, dict) and "schema" in other else data

    return run


LAMBDA = "lightning.pytorch.callbacks.LambdaCallback"
WRONG: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a class beside the user": (lambda d: d["config"]["model"].update(class_path="evil.X"), "a file of data runs no"),
    "a callback beside the user": (
        lambda d: d["config"]["trainer"].update(callbacks=[{"class_path": "evil.X"}]), "the class 'evil.X'",
    ),
    **{
        f"{key} named beside the user": (
            lambda d, key=key: d["config"]["trainer"].update({key: ["evil.X"] if key == "callbacks" else "evil.X"}),
            "the class 'evil.X'",
        )
        for key in OF_CLASSES
    },
    "a function beside the user": (
        lambda d: d["config"]["trainer"].update(
            callbacks=[{"class_path": LAMBDA, "init_args": {"on_fit_start": "evil.X"}}]
        ),
        "the class 'evil.X'",
    ),
    "data beside the user": (lambda d: d["config"]["data"].update(class_path="evil.X"), "the class 'evil.X'"),
    "no model": (lambda d: d["config"].pop("model"), "does not say what its model was"),
    "no data": (lambda d: d["config"].pop("data"), "does not say what its data was"),
    "no config": (lambda d: d.update(config={}), "does not say what its"),
    "a failed cell": (lambda d: failed(), "there is no outcome to compare with"),
    "another data set": (lambda d: d["config"]["data"]["init_args"].update(dataset="nowhere"), "nowhere"),
    "an unknown backbone": (lambda d: d["cell"].update(backbone="nowhere"), "nowhere"),
    "an unknown protocol": (lambda d: d["cell"].update(protocol="nowhere"), "nowhere"),
    "a wrong value": (lambda d: d["config"]["trainer"].update(max_epochs="x"), "max_epochs"),
    "a part of the images": (lambda d: d["config"]["trainer"].update(limit_test_batches=1), "limit_test_batches"),
    "a suite outside": (lambda d: d["cell"].update(suite="../../x"), "no name of a folder"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_record_that_cannot_be_computed_again_is_one_sentence(
    computed: Path, tmp_path: Path, monkeypatch: Any, capsys: Said, case: str
) -> None:
    change, word = WRONG[case]
    (tmp_path / "evil.py").write_text("raise SystemExit(77)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    data = edited(change)(json.loads(record_of(computed, "zero_shot").read_text()))
    (tmp_path / "some.json").write_text(json.dumps(data))
    assert main(["bench", "--record", "some.json", "--results", "deep/er/again"]) in (1, 2)
    said = capsys.readouterr().err
    assert word in said
    assert said.startswith("clipbench: ")
    assert len(said.splitlines()) == 1
    outside = [path for path in tmp_path.rglob("*.json") if "again" not in path.parts and path.name != "some.json"]
    assert outside == []


def test_wrong_calls(computed: Path, tmp_path: Path, capsys: Said) -> None:
    path = str(record_of(computed, "zero_shot"))
    for words, said in (
        (["--record", path, "--shots", "4"], "leave out --shots"),
        (["--record", path, "--set", "model.lr=1"], "leave out --set"),
        (["--record", path, "--datasets", "dtt"], "did you mean 'dtd'"),
        (["--record", path, "--seeds", "7"], "unknown seed"),
        (["--record", path, "--results", str(computed)], "name another folder with --results"),
        (["--record", str(tmp_path / "nothing.json")], "is not in"),
        (["--record", str(tmp_path)], "is a folder"),
        (["--record", path, "--method", "coop"], "recipe 'coop' is CoOp"),
        ([], "--method names no recipe"),
    ):
        assert main(["bench", *words]) in (1, 2), words
        assert said in capsys.readouterr().err, words


def test_a_method_of_ones_own_is_computed_again_when_its_recipe_is_named(
    tmp_path: Path, monkeypatch: Any, capsys: Said
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "again_own.py").write_text(
        "from clipbench.methods.zero_shot import ZeroShot\n\n\nclass Mine(ZeroShot):\n    pass\n"
    )
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"model": {"class_path": "again_own.Mine"}}))
    assert main(["bench", "-m", "mine.yaml", *GRID]) == 0
    path = str(record_of(tmp_path / "runs", "mine"))
    assert main(["bench", "--record", path]) == 1
    assert "name its recipe, as --method own.yaml" in capsys.readouterr().err
    assert main(["bench", "--record", path, "--method", "mine.yaml"]) == 0


def test_several_records_of_a_file_are_counted(computed: Path, tmp_path: Path, capsys: Said) -> None:
    line = json.dumps(json.loads(record_of(computed, "zero_shot").read_text()))
    (tmp_path / "two.jsonl.gz").write_bytes(gzip.compress(f"{line}\n{line}\n".encode()))
    assert main(["bench", "--record", str(tmp_path / "two.jsonl.gz")]) == 0
    said = capsys.readouterr().out
    assert "2 of 2 cells are equal" in said
    assert "done already" in said
