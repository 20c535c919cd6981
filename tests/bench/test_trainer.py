"""The trainer: one process and one device; what Lightning refuses is a sentence, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Union

import pytest
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser

from clipbench.bench.build import _whole_numbers_first, resolved, with_precision
from clipbench.bench.trainer import check_trainer, make_trainer, on_cuda
from clipbench.errors import ConfigError, NotHere
from clipbench.recipes.settings import from_dotted

JOB = {  # what launchers put into the environment of each task
    "slurm": {
        "SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "7",
        "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "2", "SLURM_NODEID": "1",
    },
    "torchrun": {
        "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "localhost", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "x",
    },
    "lsf": {
        "LSB_JOBID": "1", "LSB_DJOB_RANKFILE": "/nowhere",
        "JSM_NAMESPACE_LOCAL_RANK": "1", "JSM_NAMESPACE_SIZE": "2",
    },
}  # fmt: skip
REFUSED = {
    "trainer.devices": "2",
    "trainer.num_nodes": "2",
    "trainer.strategy": "ddp",
    "trainer.accelerator": "nosuch",
    "trainer.val_check_interval": "7.5",
    "trainer.limit_train_batches": "7.5",
    "trainer.max_epochs": "-3",
    "trainer.max_steps": "-2",
    "trainer.max_time": "7",
    "trainer.profiler": "nosuch",
    "trainer.accumulate_grad_batches": "0",
    "trainer.check_val_every_n_epoch": "0",
    "trainer.reload_dataloaders_every_n_epochs": "-1",
    "trainer.logger": "nosuch",
    "trainer.callbacks": "nosuch",
    "trainer.plugins": "nosuch",
    "trainer.deterministic": "maybe",
    "trainer.enable_progress_bar": "2",
    "trainer.gradient_clip_val": ".inf",
}


@pytest.fixture(autouse=True)
def rank() -> Iterator[None]:
    before = rank_zero_only.rank
    yield
    rank_zero_only.rank = before


@pytest.mark.parametrize("job", JOB)
def test_in_a_job_of_several_tasks_each_call_is_one_process(job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in JOB[job].items():
        monkeypatch.setenv(name, value)
    rank_zero_only.rank = 3  # as Lightning sets it where it is imported in such a task
    trainer = make_trainer({"accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False})
    assert (trainer.world_size, trainer.global_rank, trainer.num_nodes) == (1, 0, 1)
    assert rank_zero_only.rank == 0


@pytest.mark.parametrize("key", REFUSED)
def test_what_is_refused_is_a_sentence_with_its_key(key: str) -> None:
    config = {"model": {"class_path": "CLIPFit"}, "data": {"class_path": "FewShotDataModule"}}
    with pytest.raises(ConfigError, match=key) as error:
        resolved(with_precision(config | from_dotted({key: REFUSED[key]})))
    said = str(error.value)
    assert REFUSED[key].lstrip(".") in said
    assert "\n" not in said
    assert len(said) < 700
    assert error.value.exit_status == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["gpu", "cuda", "mps", "tpu"])
def test_an_accelerator_that_is_not_here_is_no_wrong_word(name: str) -> None:
    with pytest.raises(NotHere, match=f"trainer.accelerator {name}: this machine has none") as error:
        make_trainer({"accelerator": name, "devices": 1})
    assert error.value.exit_status == 1


@pytest.mark.parametrize(
    ("trainer", "precision"),
    [
        ({}, "bf16-mixed"), ({"accelerator": "auto"}, "bf16-mixed"), ({"accelerator": "gpu"}, "bf16-mixed"),
        ({"accelerator": "cpu"}, "32-true"), ({"accelerator": "cpu", "precision": "bf16"}, "bf16-mixed"),
        ({"precision": "32"}, "32-true"),
    ],
)  # fmt: skip
def test_the_usual_precision_is_that_of_the_device_that_computes(
    trainer: dict[str, str], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert with_precision({"trainer": trainer})["trainer"]["precision"] == precision
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not on_cuda(trainer)


def test_a_check_leaves_the_flags_of_torch() -> None:
    check_trainer({"accelerator": "cpu", "deterministic": True, "benchmark": True, "logger": False})
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark


def test_a_refusal_names_classes_not_objects() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.callbacks ModelCheckpoint, trainer\.enable_checkpointing False: "):
        make_trainer({"callbacks": [ModelCheckpoint()], "enable_checkpointing": False})


@pytest.mark.parametrize("order", [(int, float, None), (float, int, None), (float, str, int, None)])
def test_one_batch_is_not_all_of_them_in_either_order_of_types(order: tuple[Any, ...]) -> None:
    """typing may give Lightning's `Union[int, float]` the order of another library's, by what was imported before."""
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_argument("--limit", type=Union[order])  # noqa: UP007
    _whole_numbers_first(parser)
    for limit in (1, 1.0):
        assert type(parser.parse_object({"limit": limit}).limit) is type(limit)
