"""The plan: which cells are asked for, what determines the outcome of each, and which are done already."""

from __future__ import annotations

import copy
import dataclasses
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
    "accelerator", "logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary", "log_every_n_steps",
    "default_root_dir", "profiler", "limit_val_batches", "limit_predict_batches", "num_sanity_val_steps",
    "check_val_every_n_epoch", "val_check_interval", "enable_autolog_hparams", "model_registry", "inference_mode",
    "deterministic", "benchmark", "detect_anomaly", "reload_dataloaders_every_n_epochs",
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
    context = data_context(section, request.suite.name, dataset) | {
        "protocol": request.protocol, "shots": request.shots, "backbone": backbone,
    }  # fmt: skip
    check_user_layers(request.user, recipe)
    for layer in request.user:
        for key in ("fast_dev_run", "barebones", "devices", "num_nodes", "strategy"):
            if key in _section(layer, "trainer"):
                raise ConfigError(f"a bench cell is a whole run on one device: trainer.{key} is for `clipbench fit`")
    # a folder or manifest of the suite keeps its class: the recipe's data section speaks of batches only
    sections = dict(recipe.sections)
    sections["data"] = {key: value for key, value in (sections.get("data") or {}).items() if key != "class_path"}
    recipe = Recipe(recipe.name, sections, recipe.overrides, recipe.about)
    axes = {"data": {"init_args": {"shots": request.shots, "seed": seed}}, "protocol": request.protocol}
    return merge(resolve(recipe, base, context, request.user, request.setting), axes)


def data_context(section: Config, suite: str, dataset: str) -> dict[str, str]:
    """`suite` and `dataset` that overrides match on: those of the card where there is one, else those given."""
    if section["class_path"].rpartition(".")[2] != "FewShotDataModule":
        return {"suite": suite, "dataset": dataset}
    from clipbench.data.cards import load_card

    card = load_card(section.get("init_args", {}).get("dataset", "mini/eurosat"))
    return {"suite": card.suite, "dataset": card.key}


def check_user_layers(layers: Sequence[Config], recipe: Recipe) -> None:
    """Refuse settings that a bench has words of its own for, and those that would make the recipe another one.

    Raises:
        ConfigError: such a setting, with the right option.
    """
    for layer in layers:
        model, data = _section(layer, "model"), _section(layer, "data")
        named = str(model.get("class_path", recipe.method)).rpartition(".")[2]
        if named != recipe.method:
            raise ConfigError(f"recipe '{recipe.name}' is {recipe.method}; for {named} name its recipe with --method")
        arguments = data.get("init_args") or {}
        for key, option in (("shots", "--shots"), ("seed", "--seeds"), ("dataset", "--datasets"), ("root", "--root")):
            if key in arguments:
                raise ConfigError(f"a bench takes data.{key} from {option}")
        if "class_path" in data:
            raise ConfigError("a bench takes its data from --suite; a folder or manifest stands in a suite file")
        if "backbone" in (model.get("init_args") or {}):
            raise ConfigError("a bench takes model.backbone from --backbone, or from the suite")
        if layer.get("protocol"):
            raise ConfigError("a bench takes the protocol from --protocol")


def _section(layer: Config, name: str) -> Config:
    section = layer.get(name) or {}
    if not isinstance(section, dict):
        raise ConfigError(
            f"'{name}' is a section of settings, not '{section}'; one setting looks like {name}.KEY=VALUE"
        )
    return section


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
            method(**full["model"]["init_args"])  # refuses a wrong setting or backbone before anything is loaded
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
                    "backbone_spec": described(backbone),
                    "changed": merged_user(request.user),
                    "precision": full["trainer"]["precision"],
                    "versions": numeric_versions() | {"method": method.version, "protocol": division.version},
                }
                cell = Cell(
                    suite=request.suite.name, dataset=dataset, recipe=recipe.name, backbone=backbone,
                    protocol=request.protocol, setting=request.setting, shots=request.shots, seed=seed,
                )  # fmt: skip
                key = content_key(
                    {
                        "cell": cell.as_dict(),
                        "model": without(full["model"], {"backbone"}),
                        "data": without(full["data"], DATA_WITHOUT_EFFECT),
                        "trainer": {k: v for k, v in full["trainer"].items() if k not in WITHOUT_EFFECT},
                        **provenance,
                    }
                )
                cell_config_ = merge(config, {"data": {"init_args": {"seed": seed}}})
                cells.append(PlannedCell(cell, key, cell_config_, cell_full, provenance, store.why_undone(cell, key)))
    if troubles:
        raise DataError("\n".join(dict.fromkeys(troubles)))
    return Plan(request, folder, cells)


def described(backbone: str) -> dict[str, Any]:
    """What the hash of the tensors does not say about a backbone: activation and preprocessing."""
    from clipbench.backbone.spec import resolve_spec

    spec = resolve_spec(backbone)
    return {"activation": spec.activation, "preprocessing": dataclasses.asdict(spec.preprocessing)}


def merged_user(layers: Sequence[Config]) -> Config:
    """What the user changed in the recipe; rows of a table never mix different changes."""
    changed: Config = {}
    for layer in layers:
        changed = merge(changed, layer)
    return changed


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
            "dataset": data.dataset,  # part of the keys of views and order
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
