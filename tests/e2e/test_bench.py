"""`clipbench bench` as a user types it: records, resuming, failures, wrong calls."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clipbench.commands import main
from clipbench.records.store import comparable, read_record

Bench = Callable[..., int]
BENCH = [sys.executable, "-m", "clipbench", "bench"]


def records(tmp_path: Path, protocol: str = "base_to_novel", suite: str = "mini") -> list[Path]:
    return sorted((tmp_path / "runs" / suite / protocol / "records").glob("*.json"))


def test_a_grid_gives_records_weights_and_a_leaderboard(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("--method", "clipfit", "--datasets", "eurosat,dtd", "--seeds", "1,2") == 0
    printed = capsys.readouterr().out
    assert "4 cells, 0 done already" in printed
    assert "[4/4]" in printed
    folder = tmp_path / "runs/mini/base_to_novel"
    assert len(records(tmp_path)) == 4
    assert len(list((folder / "weights").glob("*.safetensors"))) == 4
    rows = list(csv.DictReader((folder / "leaderboard.csv").open()))
    assert {row["dataset"] for row in rows} >= {"eurosat", "dtd", "average"}
    average = next(row for row in rows if row["dataset"] == "average")
    assert (average["cells"], average["cells_expected"], average["averaged"]) == ("4", "4", "2/11")
    for name in ("leaderboard.md", "leaderboard.tex", "scatter.png", "scatter.pdf"):
        assert (folder / name).stat().st_size > 0
    record = read_record(records(tmp_path)[0])
    assert record.splits["base"]["total"] > 0
    assert record.cost["trained_parameters"] > 0
    assert record.data["config"]["model"]["init_args"]["distillation_weight"] == 8.0


def test_a_rerun_does_only_what_is_missing(bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--method", "clipfit", "--datasets", "eurosat,dtd", "--seeds", "1")
    assert bench(*words) == 0
    first, second = records(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in (first, second)}
    second.write_text(second.read_text()[:100])  # an interrupted write of another program
    assert bench(*words) == 0
    assert "1 done already" in capsys.readouterr().out
    assert first.stat().st_mtime_ns == times[first]
    assert second.stat().st_mtime_ns != times[second]
    assert read_record(second).ok
    next((tmp_path / "runs/mini/base_to_novel/weights").glob("*dtd*")).unlink()
    assert bench(*words, "--dry-run") == 0
    assert "are missing" in capsys.readouterr().out


def test_another_setting_is_another_cell(bench: Bench, tmp_path: Path) -> None:
    words = ("--method", "zero_shot", "--datasets", "eurosat", "--seeds", "1")
    assert bench(*words) == 0
    assert bench(*words, "--set", "model.template_set=single") == 0
    keys = {read_record(path).key for path in records(tmp_path)}
    assert len(keys) == 2


def test_workers_and_one_process_give_the_same_records(bench: Bench, tmp_path: Path) -> None:
    words = ("--method", "coop", "--datasets", "eurosat,dtd", "--seeds", "1")
    assert bench(*words, "--results", str(tmp_path / "two"), "--jobs", "2") == 0
    assert bench(*words, "--results", str(tmp_path / "one")) == 0
    ones = sorted((tmp_path / "one").rglob("records/*.json"))
    assert len(ones) == 2
    for one in ones:
        two = tmp_path / "two" / one.relative_to(tmp_path / "one")
        a, b = comparable(read_record(one)), comparable(read_record(two))
        a.pop("losses"), b.pop("losses")  # sums in another order on several threads
        assert a == b


def test_paper_and_fixed_settings_stand_side_by_side(bench: Bench, tmp_path: Path) -> None:
    words = ("--method", "zero_shot", "--datasets", "eurosat", "--seeds", "1")
    assert bench(*words) == 0
    assert bench(*words, "--setting", "fixed") == 0
    rows = list(csv.DictReader((tmp_path / "runs/mini/base_to_novel/leaderboard.csv").open()))
    assert {row["setting"] for row in rows} == {"paper", "fixed"}
    assert len(records(tmp_path)) == 2


def test_a_table_never_averages_different_changes(bench: Bench, tmp_path: Path) -> None:
    words = ("--method", "clipfit", "--datasets", "eurosat")
    assert bench(*words, "--seeds", "1,2") == 0
    plain = {r.cell.seed: r.accuracy("base") for r in map(read_record, records(tmp_path))}
    assert bench(*words, "--seeds", "1", "--set", "model.lr=0.1") == 0
    assert main(["table", "--results", str(tmp_path / "runs"), "--format", "csv"]) == 0
    from clipbench.report import load_frame

    frame = load_frame(tmp_path / "runs/mini/base_to_novel")
    rows = frame[frame.dataset == "eurosat"].set_index("variant")
    short = "trainer.max_epochs 1"  # what the fixture sets
    assert rows.seeds.to_dict() == {short: "1,2", f"model.lr 0.1, {short}": "1"}
    assert float(rows.base[short]) == pytest.approx(sum(plain.values()) / 2)


def test_a_table_takes_the_suite_file_that_a_bench_takes(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = tmp_path / "own.yaml"
    suite.write_text("name: mine\nbackbone: mini\ndatasets: {land: mini/eurosat}\n")
    results = str(tmp_path / "runs")
    words = ("--method", "zero_shot", "--suite", str(suite), "--seeds", "1")
    assert bench(*words, "--results", results) == 0
    capsys.readouterr()
    assert main(["table", "--suite", str(suite), "--results", results, "--format", "csv"]) == 0
    assert "mine,mini,base_to_novel" in capsys.readouterr().out


def test_few_shot(bench: Bench, tmp_path: Path) -> None:
    assert bench("--method", "zero_shot", "--protocol", "few_shot", "--datasets", "eurosat", "--seeds", "1") == 0
    (record,) = records(tmp_path, "few_shot")
    assert list(read_record(record).splits) == ["all"]


def test_a_failed_cell_is_reported_and_the_others_run(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # a learning rate that overflows: the loss becomes infinite or not a number
    assert bench("--method", "clipfit", "--datasets", "eurosat", "--seeds", "1", "--set", "model.lr=1e30",
                 "--set", "model.warmup_epochs=0", "--set", "trainer.max_epochs=3") == 1  # fmt: skip
    printed = capsys.readouterr().out
    assert "FAILED" in printed
    assert re.search(r"at step \d+ is not finite", " ".join(printed.split()))
    (path,) = records(tmp_path)
    data = json.loads(path.read_text())
    assert data["status"] == "error"
    assert data["error"]["type"] == "MethodError"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--method", "clipfti"], "did you mean 'clipfit'"),
        (["--method", "clipfit", "--suite", "mnii"], "did you mean 'mini'"),
        (["--method", "clipfit", "--datasets", "eurosatt"], "did you mean 'eurosat'"),
        (["--method", "clipfit", "--protocol", "base2novel"], "did you mean 'base_to_novel'"),
        (["--method", "clipfit", "--datasets", "dtd", "--set", "model.learning_rate=1"], "unknown setting of CLIPFit"),
        (["--method", "clipfit", "--datasets", "dtd", "--set", "model.momentun=1"], "did you mean 'momentum'"),
        (["--method", "clipfit", "--datasets", "dtd", "--set", "trainer.max_epoch=1"], "did you mean 'max_epochs'"),
        (["--method", "clipfit", "--datasets", "dtd", "--set", "modle.lr=1"], "did you mean 'model'"),
        (["--method", "clipfit", "--datasets", "dtd", "--set", "model.lr=fast"], "lr"),
        (["--method", "clipfit", "--datasets", "dtd", "--backbone", "ViT-B-61/openai"], "did you mean"),
        (["--method", "clipfit", "--datasets", "dtd", "--seeds", "one"], "whole numbers"),
        (["--method", "clipfit", "--datasets", "dtd", "--set", "nonsense"], "looks like"),
        (
            ["--method", "clipfit", "--datasets", "dtd", "--set", "trainer=5"],
            "not a recipe at trainer: '5' is not of type 'object'",
        ),
        (["--method", "clipfit", "--datasets", "dtd", "--set", "data.shots=3"], "--shots"),
        (["--method", "clipfit", "--datasets", "dtd", "--set", "protocol=few_shot"], "--protocol"),
        (
            ["--method", "clipfit", "--datasets", "dtd", "--set", "data.protocol=few_shot"],
            "a bench takes the protocol from --protocol",
        ),
        (["--method", "clipfit", "--datasets", "dtd", "--set", "model=CoOp"], "--method"),
        (["--method", "clipfit", "--datasets", "dtd", "--config", "coop"], "--method"),
        (["--method", "clipfit", "--datasets", "dtd", "--set", "trainer.fast_dev_run=true"], "whole run"),
        (["--method", "clipfit", "--datasets", "dtd", "--set", "trainer.precision=bf16-true"], "bf16-mixed"),
        (
            ["--method", "clipfit", "--datasets", "dtd", "--set", "trainer.precision=16-mixed"],
            "trainer.precision 16-mixed: this device would compute in bf16-mixed",
        ),
        (["--method", "clipfit", "--datasets", "dtd", "--set", "trainer.max_time=00:00:00:01"], "trainer.max_time"),
        (["--method", "clipfit", "--datasets", "dtd", "--set", "trainer.accumulate_grad_batches=0"], "at least 1"),
        (["--method", "clipfit", "--datasets", "dtd", "--set", "trainer.gradient_clip_val=-1"], "at least 0"),
        (["--method", "clipfit", "--datasets", "dtd", "--backbone", "mini?image_size=1000000"], "image_size"),
        (["--method", "clipfit", "--datasets", "dtd", "--seeds", "4294967296"], "from 0 to 4294967295"),
        (["--method", "clipfit", "--datasets", "dtd", "--set", "model.lr=0"], "lr must be above 0"),
        (["--method", ""], "names no recipe"),
        (["--method", "clipfit", "--datasets", "dtd", "--jobs", "0"], "at least one process"),
    ],
)
def test_wrong_calls(bench: Bench, words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    status = bench(*words)
    assert says in capsys.readouterr().err
    assert status == 2


def test_missing_data_are_told_at_once_for_all_datasets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "bench",
        "--method",
        "zero_shot",
        "--suite",
        "clip11",
        "--datasets",
        "dtd,eurosat",
        "--root",
        str(tmp_path / "no"),
    ]
    status = main([*words, "--backbone", "mini", "--results", str(tmp_path / "runs")])
    said = capsys.readouterr().err
    assert status == 1
    assert "split_zhou_DescribableTextures.json" in said
    assert "split_zhou_EuroSAT.json" in said
    assert not (tmp_path / "runs").exists()


def test_real_class_names_are_refused_by_the_mini_backbone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], bench: Bench
) -> None:
    from clipbench.testing.folders import suite_of_folder

    suite = suite_of_folder(tmp_path / "images", "mini")
    assert suite.datasets
    for part in ("train", "val", "test"):
        (tmp_path / "images" / part / "red").rename(tmp_path / "images" / part / "zebra")
    (tmp_path / "mine.yaml").write_text(
        "name: mine\nbackbone: mini\ndatasets:\n  shapes: {class_path: ImageFolder, init_args: {root: images}}\n"
    )
    assert bench("--method", "zero_shot", "--suite", str(tmp_path / "mine.yaml"), "--seeds", "1") == 1
    assert "zebra" in capsys.readouterr().out


def test_ctrl_c_keeps_finished_records_and_the_same_command_goes_on(tmp_path: Path) -> None:
    words = [*BENCH, "--method", "clipfit", "--datasets", "eurosat,dtd", "--seeds", "1,2,3", "--jobs", "1"]
    words += ["--results", str(tmp_path / "runs"), "--set", "trainer.max_epochs=4"]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"COLUMNS": "160"}
    )
    deadline = time.monotonic() + 240
    while not records(tmp_path) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    assert records(tmp_path), process.communicate()[0]
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "finished cells are kept" in said
    finished = records(tmp_path)
    assert 1 <= len(finished) < 6
    assert all(read_record(path).ok for path in finished)
    assert not list((tmp_path / "runs").rglob("*.tmp"))
    again = subprocess.run([*words, "--dry-run"], capture_output=True, text=True, check=True)
    assert f"{len(finished)} done already" in again.stdout


def test_a_worker_that_dies_costs_its_cell_and_no_other(tmp_path: Path) -> None:
    code = "import sys; from clipbench.commands import main; sys.exit(main(sys.argv[1:]))"
    plug = tmp_path / "deadly.py"
    plug.write_text(
        "import os\nfrom clipbench.methods.zero_shot import ZeroShot\n"
        "class Deadly(ZeroShot):\n"
        "    def build(self):\n"
        "        if 'texture' in self.templates[0]:\n"
        "            os._exit(9)\n"
        "        return {}\n"
    )
    recipe = tmp_path / "deadly.yaml"
    recipe.write_text("title: t\nmodel: {class_path: deadly.Deadly}\ntrainer: {max_epochs: 0}\n")
    words = ["bench", "--method", str(recipe), "--datasets", "eurosat,dtd,food101", "--seeds", "1", "--jobs", "2"]
    call = [sys.executable, "-c", code, *words, "--results", str(tmp_path / "runs")]
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    run = subprocess.run(call, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})
    assert run.returncode == 1, run.stdout + run.stderr
    found = {read_record(path).cell.dataset: read_record(path) for path in records(tmp_path)}
    assert {name: record.ok for name, record in found.items()} == {"eurosat": True, "dtd": False, "food101": True}
    assert "worker process died" in (found["dtd"].error or "")


@pytest.mark.slow
def test_two_benches_on_one_results_folder(tmp_path: Path) -> None:
    words = [*BENCH, "--method", "clipfit", "--datasets", "eurosat,dtd,food101", "--seeds", "1", "--jobs", "1"]
    words += ["--results", str(tmp_path / "runs"), "--shots", "4"]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    said = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    starts = {path.name: read_record(path).data["environment"]["started"] for path in records(tmp_path)}
    assert len(starts) == 3
    locks = list((tmp_path / "runs").rglob(".locks/*.lock"))
    assert len(locks) == 3, "no bench took a lock"
    assert len(records(tmp_path)) == 3
    assert all(read_record(path).ok for path in records(tmp_path))


TWO = ["--method", "zero_shot", "--datasets", "eurosat,dtd", "--seeds", "1,2", "--jobs", "2", "--shots", "1"]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("seconds", [0.1, 2.0])
def test_a_signal_while_the_workers_start_leaves_nothing(
    seconds: float, number: signal.Signals, status: int, tmp_path: Path
) -> None:
    words = [*BENCH, *TWO, "--results", str(tmp_path / "runs")]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert "4 cells" in process.stdout.readline()
    time.sleep(seconds)
    os.killpg(process.pid, number)  # as a terminal and a scheduler do
    said, _ = process.communicate(timeout=120)
    assert process.returncode == status, said
    assert "stopped" in said
    assert "Traceback" not in said
    assert len(said.splitlines()) < 6, said
    deadline = time.monotonic() + 20
    while _group_lives(process.pid) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not _group_lives(process.pid)
    assert not list((tmp_path / "runs").rglob("*.tmp"))


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_what_to_write(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    words = ["bench", *TWO, "--results", str(tmp_path / "runs")]
    script.write_text(f"import sys\nfrom clipbench.commands import main\nsys.exit(main({words!r}))\n")
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.splitlines() == [
        'clipbench: each worker begins the script anew: put the call below `if __name__ == "__main__":`, or ask for '
        "--jobs 1"
    ]


@pytest.mark.slow
def test_workers_start_below_a_temporary_folder_with_a_long_path(tmp_path: Path) -> None:
    folder = tmp_path / ("t" * 100)
    folder.mkdir()
    words = [*BENCH, *TWO, "--results", str(tmp_path / "runs")]
    run = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"TMPDIR": str(folder)})
    assert run.returncode == 0, run.stderr
    assert len(records(tmp_path)) == 4
