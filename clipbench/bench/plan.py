"""The plan: which cells are asked for, what determines the outcome of each, and which are done already."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipbench.bench.recipe import Config, Recipe, merge, resolve
from clipbench.bench.record import Cell, RecordStore, content_key, run_folder
from clipbench.bench.suites import Suite
from clipbench.errors import ConfigError, DataError

# what a trainer may be told without moving a number
WITHOUT_EFFECT = {
    "accelerator", "devices", "num_nodes", "logger", "callbacks", "fast_dev_run", "enable_checkpointing",
    "enable_progress_bar", "enable_model_summary", "log_every_n_steps", "default_root_dir", "profiler", "barebones",
    "limit_val_batches", "limit_predict_batches", "num_sanity_val_steps", "check_val_every_n_epoch",
    "val_check_interval", "enable_autolog_hparams",
    "model_registry", "use_distributed_sampler", "sync_batchnorm", "inference_mode",
    "deterministic", "benchmark", "strategy", "plugins", "detect_anomaly", "reload_dataloaders_every_n_epochs",
}  # fmt: skip
DATA_WITHOUT_EFFECT = {"root", "num_workers", "path", "test_batch_size", "seed"}
BENCH_TRAINER: Config = {
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "limit_val_batches": 0,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 1,
}


@dataclass(frozen=True)
class Request:
    """What is asked for: a grid of recipes, datasets and seeds.

    Attributes:
        recipes: the recipes.
        suite: the suite.
        datasets: keys of the suite, empty: all.
        seeds: seeds of the draw and the training.
        shots: images per class.
        protocol: name of the protocol.
        backbone: instead of the suite's.
        setting: `paper` or `fixed`.
        data_root: where the real datasets lie, instead of the usual place.
        user: the user's config and the command line, above the recipe.
    """

    recipes: tuple[Recipe, ...]
    suite: Suite
    datasets: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (1, 2, 3)
    shots: int = 16
    protocol: str = "base_to_novel"
    backbone: str | None = None
    setting: str = "paper"
    data_root: str | None = None
    user: tuple[Config, ...] = field(default=(), hash=False)


@dataclass(frozen=True)
class PlannedCell:
    """A cell with everything needed to run it in any process.

    Attributes:
        cell: its identity.
        key: its content key.
        config: the merged config.
        resolved: the config with every default, for the record.
        provenance: hashes and names that stand in the record.
        undone: why it has to be run; None when it is done.
    """

    cell: Cell
    key: str
    config: Config = field(hash=False)
    resolved: Config = field(hash=False)
    provenance: dict[str, Any] = field(hash=False)
    undone: str | None


@dataclass(frozen=True)
class Plan:
    """The cells of a request in running order, and where their records lie."""

    request: Request
    folder: Path
    cells: list[PlannedCell]

    @property
    def to_run(self) -> list[PlannedCell]:
        """The cells without a valid record."""
        return [planned for planned in self.cells if planned.undone is not None]


def default_precision() -> str:
    """bf16-mixed where CUDA is, float32 elsewhere."""
    import torch

    return "bf16-mixed" if torch.cuda.is_available() else "32-true"


def cell_config(request: Request, recipe: Recipe, dataset: str, section: Config, seed: int) -> Config:
    """The merged config of one cell, ready for the parser."""
    backbone = request.backbone or request.suite.backbone
    base: Config = {
        "model": {"init_args": {"backbone": backbone}},
        "data": copy.deepcopy(section),
        "trainer": {"precision": default_precision()} | BENCH_TRAINER,
    }
    if request.data_root and section["class_path"] == "FewShotDataModule":
        base["data"]["init_args"]["root"] = request.data_root
    context = {
        "suite": request.suite.name, "protocol": request.protocol, "dataset": dataset,
        "shots": request.shots, "backbone": backbone,
    }  # fmt: skip
    # a folder or manifest of the suite keeps its class: the recipe's data section speaks of batches only
    sections = dict(recipe.sections)
    sections["data"] = {key: value for key, value in (sections.get("data") or {}).items() if key != "class_path"}
    recipe = Recipe(recipe.name, sections, recipe.overrides, recipe.about)
    axes = {"data": {"init_args": {"shots": request.shots, "seed": seed}}, "protocol": request.protocol}
    return merge(resolve(recipe, base, context, request.user, request.setting), axes)


def make_plan(request: Request, results: Path) -> Plan:
    """Every cell of the request with its key, and whether it is done.

    Raises:
        DataError: data of any dataset are missing or damaged: all that is wrong, in one message.
        ClipbenchError: a wrong recipe, backbone or setting.
    """
    from clipbench.backbone.clip import backbone_hash
    from clipbench.bench.objects import resolved
    from clipbench.methods import method_class
    from clipbench.protocols import protocol

    folder = run_folder(results, request.suite.name, request.protocol)
    store = RecordStore(folder)
    division = protocol(request.protocol)
    facts, troubles = DataFacts(), []
    cells: list[PlannedCell] = []
    for recipe in request.recipes:
        for dataset, section in request.suite.choose(list(request.datasets)).items():
            config = cell_config(request, recipe, dataset, section, request.seeds[0])
            full = resolved(config)
            method = method_class(full["model"]["class_path"])
            backbone = full["model"]["init_args"]["backbone"]
            check_abilities(method, backbone)
            for seed in request.seeds:
                cell_full = copy.deepcopy(full)
                cell_full["data"]["init_args"]["seed"] = seed
                try:
                    data = facts.of(cell_full["data"])
                except DataError as error:
                    troubles.append(str(error))
                    break
                provenance = {
                    **data,
                    "backbone_hash": backbone_hash(backbone),
                    "template_set": full["model"]["init_args"]["template_set"],
                    "templates": facts.templates(cell_full["data"], full["model"]["init_args"]["template_set"]),
                    "precision": full["trainer"]["precision"],
                    "versions": numeric_versions() | {"method": method.version, "protocol": division.version},
                }
                key = content_key(
                    {
                        "model": without(full["model"], {"backbone"}),
                        "data": without(full["data"], DATA_WITHOUT_EFFECT),
                        "trainer": {k: v for k, v in full["trainer"].items() if k not in WITHOUT_EFFECT},
                        "protocol": request.protocol,
                        **provenance,
                    }
                )
                cell = Cell(
                    suite=request.suite.name, dataset=dataset, recipe=recipe.name, backbone=backbone,
                    protocol=request.protocol, setting=request.setting, shots=request.shots, seed=seed,
                )  # fmt: skip
                cell_config_ = merge(config, {"data": {"init_args": {"seed": seed}}})
                cells.append(PlannedCell(cell, key, cell_config_, cell_full, provenance, store.why_undone(cell, key)))
    if troubles:
        raise DataError("\n".join(dict.fromkeys(troubles)))
    return Plan(request, folder, cells)


def check_abilities(method: type, backbone: str) -> None:
    """Refuse a backbone that the method cannot work on, before anything is loaded."""
    from clipbench.backbone.spec import require, resolve_spec

    require(resolve_spec(backbone), method.needs, method.__name__)  # type: ignore[attr-defined]


def without(section: Config, keys: set[str]) -> Config:
    """A `class_path` section without some of its arguments."""
    arguments = {key: value for key, value in (section.get("init_args") or {}).items() if key not in keys}
    return {"class_path": section["class_path"].rpartition(".")[2], "init_args": arguments}


def numeric_versions() -> dict[str, int]:
    """Integer versions of the rooms that numbers come from; raised when their numbers move."""
    import clipbench.backbone.version as backbone
    import clipbench.data.version as data

    return {"data": data.VERSION, "backbone": backbone.VERSION}


class DataFacts:
    """Fingerprints and templates of data sections, each read once."""

    def __init__(self) -> None:
        self._modules: dict[str, Any] = {}

    def _module(self, section: Config) -> Any:
        from clipbench.data import module

        key = repr(sorted(section["init_args"].items(), key=str)) + section["class_path"]
        if key not in self._modules:
            kind = getattr(module, section["class_path"].rpartition(".")[2], None)
            if kind is None:
                raise ConfigError(f"unknown data module '{section['class_path']}'")
            self._modules[key] = kind(**section["init_args"])
        return self._modules[key]

    def of(self, section: Config) -> dict[str, Any]:
        """What identifies the data: hashes of split, draw and files; seeds; the views in effect."""
        data = self._module(section)
        data.prepare()
        if not data.split.test:
            raise DataError(f"'{data.dataset}' has no test images: a bench has nothing to measure on it")
        return {
            **data.fingerprint(),
            "split_seed": data.split_seed,
            "train_seed": data.train_seed,
            "views": dict(data.effective_views),
        }

    def templates(self, section: Config, name: str) -> list[str]:
        """The templates of the dataset in a named set."""
        return list(self._module(section).templates(name))


def estimate(plan: Plan) -> float | None:
    """Seconds of one process for the undone cells, from the records of the same recipe there are; None without any."""
    known: dict[tuple[str, str], list[float]] = {}
    for record in RecordStore(plan.folder).all():
        if record.ok and record.cost.get("total_seconds"):
            known.setdefault((record.cell.recipe, record.cell.dataset), []).append(record.cost["total_seconds"])
    total = 0.0
    for planned in plan.to_run:
        times = known.get((planned.cell.recipe, planned.cell.dataset)) or [
            second for (recipe, _), seconds in known.items() if recipe == planned.cell.recipe for second in seconds
        ]
        if not times:
            return None
        total += sorted(times)[len(times) // 2]
    return total


def requested_names(text: str | Sequence[str]) -> tuple[str, ...]:
    """`a,b c` as names."""
    words = text if isinstance(text, str) else ",".join(text)
    return tuple(word for word in words.replace(",", " ").split() if word)
