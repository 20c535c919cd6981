"""A loss that is not finite is found; off the CPU nobody waits for each of its numbers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from clipbench.errors import MethodError
from clipbench.methods import method_class
from clipbench.methods.loss import looked_at, summed
from clipbench.recipes.recipe import known_recipes, load_recipe
from clipbench.testing.subject import Subject

ONE_EACH = {load_recipe(name).method: name for name in known_recipes()}  # a recipe of each method
# those with no optimiser solve what they learn in one step
STEPPED = [name for method, name in ONE_EACH.items() if method != "ZeroShot" and method_class(method).has_optimizer]


class Reads(TorchDispatchMode):
    """Counts the numbers that are read from tensors: on a CUDA device each read waits for it."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("recipe", STEPPED)
def test_off_the_cpu_a_step_reads_nothing_but_where_it_is_logged(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Subject(recipe, tmp_path).cli(**{"trainer.max_epochs": 1, "trainer.limit_train_batches": 2}) as cli:
        method, reads = cli.model, []
        step, strategy = method.training_step, type(cli.trainer.strategy)

        def counted(batch: Any, batch_idx: int) -> Any:
            with monkeypatch.context() as patch, Reads() as mode:
                patch.setattr(strategy, "root_device", torch.device("cuda", 0))  # nothing lies there
                loss = step(batch, batch_idx)
            reads.append(mode.count)
            return loss

        method.training_step = counted
        cli.trainer.fit(method, datamodule=cli.datamodule)
    assert reads == [1, 0]


def trainer_on(device: str, every: int) -> Any:
    return SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)), log_every_n_steps=every)


@pytest.mark.parametrize(("device", "every", "looks"), [("cpu", 50, 6), ("cuda", 3, 2), ("cuda", 1, 6), ("cuda", 0, 6)])
def test_a_loss_is_looked_at_on_the_cpu_each_time_elsewhere_where_it_is_logged(
    device: str, every: int, looks: int
) -> None:
    assert sum(looked_at(trainer_on(device, every), batch) for batch in range(6)) == looks


def test_a_spoilt_sum_is_named_when_one_looks() -> None:
    terms = {"cross_entropy": torch.tensor(1.0), "norms": torch.tensor(torch.nan)}
    tensors = {"v": torch.ones(1), "w": torch.tensor([torch.inf])}
    with pytest.raises(MethodError, match=r"loss of X at step 3 is not finite .* norms nan\); first tensor: w"):
        summed(terms, "X at step 3", tensors, trainer_on("cpu", 50), 3)
    total, shown = summed(terms, "X at step 3", tensors, trainer_on("cuda", 50), 3)
    assert not torch.isfinite(total)
    assert shown.keys() == {"cross_entropy", "norms", "total"}
