"""The plan: which cells are asked for, what determines the outcome of each, and which are done already."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from clipbench.backbone.spec import resolve_spec, usual_name
from clipbench.bench.fingerprint import class_path, code_of
from clipbench.bench.identity import DataFingerprints, numeric_versions, spec_identity
from clipbench.bench.started import start_identity
from clipbench.errors import DataError
from clipbench.recipes.cell_config import cell_config, data_context
from clipbench.recipes.recipe import Config, Recipe, known_recipes, load_recipe, matches, merge
from clipbench.recipes.request import Request
from clipbench.recipes.start import start_of
from clipbench.records.settings import flat
from clipbench.records.store import Cell, RecordStore, content_key, run_folder

if TYPE_CHECKING:
    from clipbench.methods.base import Method

# what a trainer may be told without moving a number
WITHOUT_EFFECT = {
    "accelerator", "logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary", "log_every_n_steps",
    "default_root_dir", "profiler", "limit_val_batches", "limit_predict_batches", "num_sanity_val_steps",
    "check_val_every_n_epoch", "val_check_interval", "enable_autolog_hparams", "model_registry", "inference_mode",
    "deterministic", "benchmark", "detect_anomaly", "reload_dataloaders_every_n_epochs",
}  # fmt: skip
# of the data's settings; protocol and seeds stand in the key by themselves
DATA_WITHOUT_EFFECT = {"root", "num_workers", "path", "test_batch_size", "seed", "protocol"}


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
        start: the cell that has to be run before, since this one begins from its learned weights.
    """

    cell: Cell
    key: str
    config: Config = field(hash=False)
    resolved: Config = field(hash=False)
    provenance: dict[str, Any] = field(hash=False)
    undone: str | None
    start: PlannedCell | None = None


@dataclass(frozen=True)
class Plan:
    """The cells of a request and those that they start from, in running order, and where their records lie."""

    request: Request
    folder: Path
    cells: list[PlannedCell]

    @property
    def to_run(self) -> list[PlannedCell]:
        """The cells without a valid record."""
        return [planned for planned in self.cells if planned.undone is not None]

    @property
    def others(self) -> list[PlannedCell]:
        """The cells of recipes that were not asked for: others start from them."""
        asked = {recipe.name for recipe in self.request.recipes}
        return [planned for planned in self.cells if planned.cell.recipe not in asked]


def make_plan(request: Request, results: Path) -> Plan:
    """Every cell of the request with its key, those that others start from before them, and whether it is done.

    Raises:
        DataError: data of any dataset are missing or damaged: all that is wrong, in one message.
        ClipbenchError: a wrong recipe, backbone or setting, or a folder where no results can be.
    """
    folder = run_folder(results, request.suite.name, request.protocol)
    store = RecordStore(folder)
    store.check_place()
    planner = _Planner(request, store)
    for recipe in request.recipes:
        for dataset in request.suite.choose(list(request.datasets)):
            planner.asked |= {planned.key for planned in planner.cells_of(recipe, dataset, request.user).values()}
    if planner.problems:
        raise DataError("\n".join(dict.fromkeys(planner.problems)))
    # of two plans for one cell, with the user's changes and without, a table takes the later one: that asked for
    cells = sorted(planner.planned.values(), key=lambda planned: planned.key in planner.asked)
    return Plan(request, folder, cells)


class _Planner:
    """Plans recipe by recipe and dataset by dataset; remembers what is planned already.

    Attributes:
        planned: key to cell, each after the one that it starts from.
        asked: keys of the cells of the request itself.
        problems: what is wrong with the data.
    """

    def __init__(self, request: Request, store: RecordStore) -> None:
        self.request, self.store, self.facts = request, store, DataFingerprints()
        self.planned: dict[str, PlannedCell] = {}
        self.asked: set[str] = set()
        self.problems: list[str] = []
        self._parsed: dict[str, Config] = {}
        self._template_sets: dict[str, str] = {}
        self._packaged: dict[str, Recipe] = {}

    def cells_of(
        self, recipe: Recipe, dataset: str, user: tuple[Config, ...], children: tuple[str, ...] = ()
    ) -> dict[int, PlannedCell]:
        """The cells of a recipe on a dataset by seed, all of them in `planned`; none where data are missing.

        Args:
            recipe: the recipe.
            dataset: key of the suite.
            user: the user's settings; they are not for a recipe that another one starts from.
            children: the recipes that start from this one, to find a circle.
        """
        from clipbench.bench.build import with_precision
        from clipbench.methods import method_class

        request = dataclasses.replace(self.request, user=user)
        section = request.suite.datasets[dataset]
        config = with_precision(cell_config(request, recipe, dataset, section, request.seeds[0]))
        start = start_of(config, recipe.name, children)
        parents: dict[int, PlannedCell] = {}
        if isinstance(start, Recipe):
            parents = self.cells_of(start, dataset, (), (*children, recipe.name))
            if not parents:
                return {}
        full = self._resolved(config)
        variant, digest = self._variant(recipe, dataset, full, user), acting_digest(request, recipe, section, dataset)
        if parents and full["model"]["init_args"]["template_set"] is None:  # null: that of what it starts from
            template_set = next(iter(parents.values())).provenance["template_set"]
            config, full = (
                merge(one, {"model": {"init_args": {"template_set": template_set}}}) for one in (config, full)
            )
        kind = method_class(full["model"]["class_path"])
        template_set = self._template_set(kind, full["model"]["init_args"])
        found: dict[int, PlannedCell] = {}
        for seed in request.seeds:
            cell_full = copy.deepcopy(full)
            cell_full["data"]["init_args"]["seed"] = seed
            try:
                identity = self._identity(cell_full, kind) | {
                    "template_set": template_set,
                    "templates": self.facts.templates(cell_full["data"], template_set),
                }
            except DataError as error:
                self.problems.append(str(error))
                return {}
            own: Config = {"data": {"init_args": {"seed": seed}}}
            if parents:
                file = self.store.weights_for(parents[seed].cell, parents[seed].key)
                own |= {"model": {"init_args": {"start": str(file)}}}
                identity["start"] = {"recipe": parents[seed].cell.recipe, "key": parents[seed].key}
            elif isinstance(start, Path):
                task, backbone = self.facts.task(cell_full["data"]), full["model"]["init_args"]["backbone"]
                identity["start"] = start_identity(start, kind, backbone, identity["backbone_hash"], task)
            row = {"variant": variant, "recipe_digest": digest} | published_weights(full)
            if isinstance(start, Path):  # by its content, wherever it lies
                row["variant"] = variant | {"model.start": f"{start.name} {identity['start']['sha256'][:6]}"}
            elif parents:
                row["recipe_digest"] = content_key({"own": digest, "start": parents[seed].provenance["recipe_digest"]})
            found[seed] = self._planned(
                recipe, dataset, cell_full, merge(config, own), identity, row, parents.get(seed)
            )
        return found

    def _variant(self, recipe: Recipe, dataset: str, full: Config, user: tuple[Config, ...]) -> dict[str, Any]:
        """The dotted settings in which a cell differs from the packaged recipe of that name, or from its own file."""
        from clipbench.bench.build import with_precision

        if recipe.name not in self._packaged:
            self._packaged[recipe.name] = load_recipe(recipe.name) if recipe.name in known_recipes() else recipe
        packaged = self._packaged[recipe.name]
        if not user and packaged == recipe:
            return {}
        request = dataclasses.replace(self.request, user=())
        section = request.suite.datasets[dataset]
        usual = self._resolved(with_precision(cell_config(request, packaged, dataset, section, request.seeds[0])))
        return differing(acting(full), acting(usual))

    def _resolved(self, config: Config) -> Config:
        """The config with every default; parsed once for all datasets that it is the same for but for their name."""
        from clipbench.bench.build import resolved

        named = isinstance((config["data"].get("init_args") or {}).get("dataset"), str)
        alike = merge(config, {"data": {"init_args": {"dataset": ""}}}) if named else config
        known = json.dumps(alike, default=str)
        if known not in self._parsed:
            self._parsed[known] = resolved(config)
        if not named:
            return self._parsed[known]
        return merge(self._parsed[known], {"data": {"init_args": {"dataset": config["data"]["init_args"]["dataset"]}}})

    def _template_set(self, kind: type[Method], arguments: Config) -> str:
        """The template set of a method with these arguments.

        It is built on a backbone without weights, so that a wrong setting, backbone or selection is refused before
        anything is loaded; once for all cells.
        """
        from clipbench.bench.build import method_without_weights

        known = json.dumps([class_path(kind), arguments], sort_keys=True, default=str)
        if known not in self._template_sets:
            template_set = kind(**arguments).template_set
            if not kind.derived:
                with suppress(NotImplementedError):  # it looks at values, of which there are none here
                    method_without_weights(kind, arguments, classes=2)
            self._template_sets[known] = template_set
        return self._template_sets[known]

    def _identity(self, full: Config, kind: type[Method]) -> dict[str, Any]:
        """What stands in the record's provenance and in the key."""
        from clipbench.backbone.clip import backbone_hash
        from clipbench.protocols import protocol

        backbone = full["model"]["init_args"]["backbone"]
        division = protocol(self.request.protocol)
        callbacks = full["trainer"].get("callbacks") or []
        identity: dict[str, Any] = {
            **self.facts.of(full["data"]),
            "backbone_hash": backbone_hash(backbone),
            "backbone_spec": spec_identity(backbone),
            "precision": full["trainer"]["precision"],
            "class_path": class_path(kind),
            "code": code_of(kind, [resolve_name(callback["class_path"]) for callback in callbacks]),
            "versions": numeric_versions()
            | {"method": kind.version, "protocol": division.version}
            | callback_versions(callbacks),
        }
        return identity

    def _planned(
        self, recipe: Recipe, dataset: str, full: Config, config: Config, identity: dict[str, Any],
        row: dict[str, Any], parent: PlannedCell | None,
    ) -> PlannedCell:  # fmt: skip
        request = self.request
        cell = Cell(
            suite=request.suite.name, dataset=dataset, recipe=recipe.name,
            backbone=full["model"]["init_args"]["backbone"], protocol=request.protocol, setting=request.setting,
            shots=request.shots, seed=full["data"]["init_args"]["seed"],
        )  # fmt: skip
        key = content_key(
            {
                "cell": cell.as_dict(),
                # the class stands in the identity, by its whole path
                "model": without(full["model"], {"backbone", "start"})["init_args"],
                "data": without(full["data"], DATA_WITHOUT_EFFECT),
                "trainer": {k: v for k, v in full["trainer"].items() if k not in WITHOUT_EFFECT},
                **identity,
            }
        )
        undone = self.store.why_undone(cell, key)
        return self.planned.setdefault(key, PlannedCell(cell, key, config, full, identity | row, undone, parent))


def published_weights(full: Config) -> dict[str, str]:
    """Which published weights a file of the user's holds, where its name does not say it; part of no key."""
    from clipbench.backbone.load import known_weights

    name = full["model"]["init_args"]["backbone"]
    known = known_weights(resolve_spec(name))
    return {"pretrained": known} if known and known != usual_name(name) else {}


def callback_versions(callbacks: Sequence[Config]) -> dict[str, int]:
    """The versions of those callbacks that have one: they move a method's numbers, as its own version would say."""
    versions = {}
    for callback in callbacks:
        kind = resolve_name(callback["class_path"])
        version = getattr(kind, "version", None)
        if isinstance(version, int):
            versions[kind.__name__] = version
    return versions


def acting(full: Config) -> dict[str, Any]:
    """The settings of a resolved config that may move a number, dotted; precision, seeds and data have their own."""
    return flat(
        {
            "model": {"class_path": full["model"]["class_path"].rpartition(".")[2]}
            | without(full["model"], {"backbone"}),
            "data": {"init_args": without(full["data"], DATA_WITHOUT_EFFECT | {"dataset"})["init_args"]},
            "trainer": {k: v for k, v in full["trainer"].items() if k not in WITHOUT_EFFECT | {"precision"}},
        }
    )


def differing(mine: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
    """The settings of `mine` that are others in `usual`, None for those that it does not have."""
    return {name: mine.get(name) for name in mine.keys() | usual.keys() if mine.get(name) != usual.get(name)}


def acting_digest(request: Request, recipe: Recipe, section: Config, dataset: str) -> str:
    """SHA-256 of what a recipe's own file says for this suite, protocol, shots and backbone, whatever the dataset."""
    context = data_context(section, request.suite.name, dataset) | {
        "protocol": request.protocol, "shots": request.shots, "backbone": request.backbone or request.suite.backbone,
    }  # fmt: skip
    entries = [
        {key: value for key, value in entry.items() if key != "source"}
        for entry in recipe.overrides
        if matches({key: value for key, value in entry.items() if key != "dataset"}, context)
    ]
    return content_key({"sections": recipe.sections, "overrides": entries})


def without(section: Config, keys: set[str]) -> Config:
    """A `class_path` section without some of its arguments."""
    arguments = {key: value for key, value in (section.get("init_args") or {}).items() if key not in keys}
    return {"class_path": section["class_path"].rpartition(".")[2], "init_args": arguments}


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
