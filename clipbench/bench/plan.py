"""The plan: which cells are asked for, what determines the outcome of each, and which are done already."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections import defaultdict
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from clipbench.bench.acting import (
    DATA_WITHOUT_EFFECT,
    WITHOUT_EFFECT,
    acting,
    acting_digest,
    callback_versions,
    differing,
    in_key,
    suite_digest,
    with_augmentation,
    without,
)
from clipbench.bench.fingerprint import class_path, code_of
from clipbench.bench.identity import (
    DataFingerprints,
    hash_at_hand,
    numeric_versions,
    published_weights,
    spec_identity,
)
from clipbench.bench.planned import NO_WEIGHTS, Plan, PlannedCell, absent_weights, estimate
from clipbench.bench.resolved import ResolvedConfigs
from clipbench.bench.started import row_of_start, start_identity, vouch_for, without_learner
from clipbench.bench.transfers import Transfers
from clipbench.errors import (
    BackboneError,
    ClipbenchError,
    ConfigError,
    DataError,
    MethodError,
    UnreadSetting,
    raise_together,
)
from clipbench.recipes.cell_config import cell_config
from clipbench.recipes.origins import chosen_on_labels
from clipbench.recipes.recipe import Config, Recipe, merge
from clipbench.recipes.request import Request
from clipbench.recipes.start import start_of
from clipbench.records.store import Cell, RecordStore, content_key, run_folder

if TYPE_CHECKING:
    from clipbench.methods.base import Method
__all__ = ["Plan", "PlannedCell", "estimate", "make_plan"]


def make_plan(request: Request, results: Path, dry_run: bool = False, exactly: bool = False) -> Plan:
    """Every cell of the request with its key, those that others start from before them, and whether it is done.

    Args:
        request: the grid.
        results: the folder of all runs.
        dry_run: leave weights that are not on this machine where they are.
        exactly: a transfer is done only where its record has no further targets.

    Raises:
        DataError: data of any dataset, or weights, are missing or damaged: all that is wrong, in one message.
        ClipbenchError: wrong recipes, backbones or settings, each named; or a folder where no results can be.
    """
    folder = run_folder(results, request.suite.name, request.protocol)
    store = RecordStore(folder)
    store.check_place()
    planner = _Planner(request, store, not dry_run, exactly)
    planner.plan()
    if planner.absent and not dry_run and not planner.problems:
        from clipbench.backbone.clip import load_backbone

        for backbone in planner.absent:
            load_backbone(backbone)  # fetched, or refused with what to bring
        planner = _Planner(request, store, exactly=exactly)
        planner.plan()
    if planner.problems:
        raise DataError(planner.problem_text())
    # of two plans for one cell, with the user's changes and without, a table takes the later one: that asked for
    cells = sorted(planner.planned.values(), key=lambda planned: planned.key in planner.asked)
    return Plan(request, folder, cells, tuple(planner.absent))


class _Planner:
    """Plans recipe by recipe and dataset by dataset; remembers what is planned already.

    Attributes:
        request: what is planned at the moment: the whole request, for one number of shots.
        planned: key to cell, each after the one that it starts from.
        asked: keys of the cells of the request itself.
        problems: what is wrong with data and weights, by dataset, or "" where it is no dataset's.
        absent: the backbones whose weights are not on this machine.
    """

    def __init__(self, request: Request, store: RecordStore, opens: bool = True, exactly: bool = False) -> None:
        self.request, self.store, self.facts = request, store, DataFingerprints(opens)
        self.transfers = Transfers(store, exactly)
        self.planned: dict[str, PlannedCell] = {}
        self.asked: set[str] = set()
        self.problems: dict[str, list[str]] = defaultdict(list)
        self.absent: dict[str, None] = {}
        self._hashes: dict[str, str] = {}
        self._configs = ResolvedConfigs()

    def plan(self) -> None:
        """Plan every cell of the request.

        Raises:
            ClipbenchError: wrong recipes, backbones or settings: all of them, each by its recipe.
        """
        wrong: dict[str, ClipbenchError] = {}
        vouch_for(self.request.recipes)
        whole = self.request
        for request, recipe in itertools.product(whole.each_shots(), whole.recipes):
            self.request = request
            try:
                user = without_learner(whole.user, recipe)
                for dataset in whole.trained():
                    self.asked |= {one.key for one in self.cells_of(recipe, dataset, user).values()}
            except (ConfigError, BackboneError, MethodError) as error:
                wrong[recipe.name] = error
        raise_together(wrong, "recipe")

    def problem_text(self) -> str:
        """All problems; where many datasets have some, what to get stands with `data status` alone."""
        datasets = [name for name in self.problems if name]
        whole = len(datasets) <= 2
        texts = [text for some in self.problems.values() for text in some]
        lines = [text if whole else text.partition("\nwhat to get:")[0] for text in dict.fromkeys(texts)]
        lines += [absent_weights(self.absent)] if self.absent else []
        if not whole:
            hints = [name for name in datasets if any("\nwhat to get:" in text for text in self.problems[name])]
            named = [str(self.request.suite.datasets[name]["init_args"]["dataset"]) for name in hints]
            lines += [f"what to get and how it must lie: clipbench data status {named[0]} ..."] if named else []
        there = [name for name in self.request.measured() if name not in datasets]
        if datasets and there and not set(self.request.trained()) <= set(datasets):
            lines.append(f"the data of {', '.join(there)} are there: --datasets {','.join(there)}")
        return "\n".join(lines)

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
        section = request.trained()[dataset]
        config = with_precision(cell_config(request, recipe, dataset, section, request.seeds[0]))
        start = start_of(config, recipe.name, children)
        parents: dict[int, PlannedCell] = {}
        if isinstance(start, Recipe):
            parents = self.cells_of(start, dataset, (), (*children, recipe.name))
            if not parents:
                return {}
        full = stated = self._configs.of(config)
        usual = self._configs.usual(self.request, recipe, dataset, stated, user)
        digest = acting_digest(request, recipe, section, dataset)
        selected = chosen_on_labels(request, recipe, dataset)
        if parents and full["model"]["init_args"]["template_set"] is None:  # null: that of what it starts from
            template_set = next(iter(parents.values())).provenance["template_set"]
            config, full = (
                merge(one, {"model": {"init_args": {"template_set": template_set}}}) for one in (config, full)
            )
        kind = method_class(full["model"]["class_path"])
        template_set = self._configs.template_set(kind, full["model"]["init_args"], full["trainer"].get("max_epochs"))
        found: dict[int, PlannedCell] = {}
        for seed in request.seeds:
            cell_full = copy.deepcopy(full)
            cell_full["data"]["init_args"]["seed"] = seed
            try:
                identity = self._identity(cell_full, kind) | self.facts.templates(cell_full["data"], template_set)
            except DataError as error:
                for name, text in (self.facts.problems(cell_full["data"]) or {"": str(error)}).items():
                    self.problems[name or dataset].append(text)
                return {}
            augmentation = identity["augmentation"]
            self._refuse_unread(user, cell_full, augmentation)
            by_card = self.facts.of_card(cell_full["data"])
            acts = {name: augmentation[name] for name in by_card}  # so that learned weights say the same
            own: Config = {"data": {"init_args": {"seed": seed} | acts}}
            if parents:
                file = self.store.weights_for(parents[seed].cell, parents[seed].key)
                own |= {"model": {"init_args": {"start": str(file)}}}
                identity["start"] = {"recipe": parents[seed].cell.recipe, "key": parents[seed].key}
            elif isinstance(start, Path):
                task, backbone = self.facts.task(cell_full["data"]), full["model"]["init_args"]["backbone"]
                identity["start"] = start_identity(start, kind, backbone, identity["backbone_hash"], task)
            # what a card says itself is no difference, and in the key it stands as the packaged recipe has it
            asked = {name: usual["data"]["init_args"][name] for name in by_card}
            counted = with_augmentation(cell_full, asked)
            variant = {}
            if usual is not stated:
                variant = differing(acting(with_augmentation(stated, asked)), acting(usual))
            row = {"variant": variant, "recipe_digest": digest, "selected_on": selected} | self.facts.measured(
                cell_full["data"]
            )
            if identity["backbone_hash"]:
                row |= suite_digest(request.suite, dataset, identity.get("targets", ())) | published_weights(cell_full)
            if isinstance(start, Path):  # by its content, wherever it lies
                row["variant"] = variant | {"model.start": f"{start.name} {identity['start']['sha256'][:6]}"}
            elif parents:
                row["recipe_digest"] = content_key({"own": digest, "start": row_of_start(parents[seed])})
            found[seed] = self._planned(
                recipe, dataset, counted, with_augmentation(cell_full, augmentation), merge(config, own), identity, row,
                parents.get(seed),
            )  # fmt: skip
        return found

    def _refuse_unread(self, user: tuple[Config, ...], full: Config, augmentation: Config) -> None:
        """Raise UnreadSetting where a user asks for an augmentation and the card has its own."""
        for layer in user:
            arguments = (layer.get("data") or {}).get("init_args") or {}
            for name in self.facts.of_card(full["data"]):
                if name in arguments:
                    reason = f"the card '{full['data']['init_args']['dataset']}' has its own, {augmentation[name]}"
                    raise UnreadSetting(f"data.{name}", full["data"]["init_args"][name], reason)

    def _identity(self, full: Config, kind: type[Method]) -> dict[str, Any]:
        """What stands in the record's provenance and in the key."""
        from clipbench.protocols import protocol

        backbone = full["model"]["init_args"]["backbone"]
        division = protocol(self.request.protocol)
        callbacks = full["trainer"].get("callbacks") or []
        backbone_hash = self._hash(backbone)
        identity: dict[str, Any] = {
            **self.facts.of(full["data"]),
            "backbone_hash": backbone_hash,
            "backbone_spec": spec_identity(backbone),
            "precision": full["trainer"]["precision"],
            "class_path": class_path(kind),
            "code": code_of(kind, [resolve_name(callback["class_path"]) for callback in callbacks]),
            "versions": numeric_versions()
            | {"method": kind.version, "protocol": division.version}
            | callback_versions(callbacks),
        }
        return identity

    def _hash(self, backbone: str) -> str:
        """The hash of a backbone; "" where its weights are not on this machine, or damaged."""
        if backbone not in self._hashes:
            self._hashes[backbone] = ""
            try:
                found = hash_at_hand(backbone)
            except BackboneError as error:
                self.problems[""].append(str(error))
            else:
                self.absent |= {} if found else {backbone: None}
                self._hashes[backbone] = found or ""
        return self._hashes[backbone]

    def _planned(
        self, recipe: Recipe, dataset: str, full: Config, shown: Config, config: Config, identity: dict[str, Any],
        row: dict[str, Any], parent: PlannedCell | None,
    ) -> PlannedCell:  # fmt: skip
        """The cell of a config: `full` determines its key, `shown` is what its record says."""
        request = self.request
        cell = Cell(
            suite=request.suite.name, dataset=dataset, recipe=recipe.name,
            backbone=full["model"]["init_args"]["backbone"], protocol=request.protocol, setting=request.setting,
            shots=request.shots, seed=full["data"]["init_args"]["seed"],
        )  # fmt: skip
        cell.check_names()
        determines = {
            "cell": cell.as_dict(),
            "model": in_key(full["model"]),
            "data": without(full["data"], DATA_WITHOUT_EFFECT),
            "trainer": {k: v for k, v in full["trainer"].items() if k not in WITHOUT_EFFECT},
            **identity,
        }
        unknown = (content_key(determines), NO_WEIGHTS, frozenset[str]())
        key, undone, beside = self.transfers.find(cell, determines) if identity["backbone_hash"] else unknown
        one = PlannedCell(cell, key, config, shown, identity | row, undone, parent, beside)
        return self.planned.setdefault(key, one)
