"""A recipe under test on a suite, small: its cli, its fit, and what checks look at."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from clipbench.bench.build import ClipbenchCLI, build, with_precision
from clipbench.errors import ClipbenchWarning
from clipbench.methods import method_class
from clipbench.methods.base import Method
from clipbench.recipes.cell_config import cell_config
from clipbench.recipes.recipe import from_dotted, known_recipes, load_recipe, merge
from clipbench.recipes.request import Request
from clipbench.recipes.suites import Suite, load_suite

SMALL = {"trainer.max_epochs": 2, "data.batch_size": 10}
LEARNED: dict[tuple[str, str, str], bytes] = {}  # files of weights, by recipe, dataset and settings


@dataclass
class Subject:
    """A recipe under test on a suite, small.

    Attributes:
        recipe: packaged recipe or YAML file.
        folder: an empty folder.
        suite: what it runs on.
        dataset: which dataset of the suite.
        settings: dotted settings above the recipe.
    """

    recipe: str
    folder: Path
    suite: Suite = field(default_factory=lambda: load_suite("mini"))
    dataset: str = "eurosat"
    settings: dict[str, Any] = field(default_factory=dict)

    def request(self, started: bool = True) -> Request:
        """The grid of one cell, two epochs, four shots; without what it starts from where `started` is false."""
        start = self.start() if started else {}
        return Request(
            recipes=(load_recipe(self.recipe),), suite=self.suite, datasets=(self.dataset,), seeds=(1,), shots=4,
            user=(from_dotted(SMALL | start | self.settings),),
        )  # fmt: skip

    def method(self) -> Method:
        """The method with its settings, not set up: nothing is loaded and nothing parsed."""
        request = self.request(started=False)
        config = cell_config(request, request.recipes[0], self.dataset, self.suite.datasets[self.dataset], seed=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ClipbenchWarning)
            return method_class(config["model"]["class_path"])(**config["model"].get("init_args") or {})

    def exemption(self, check: str) -> str | None:
        """Why a check, by its name, has no meaning for the method (`Method.exempt`), or None."""
        return self.method().exempt.get(check)

    def start(self) -> dict[str, Any]:
        """Where the recipe starts from another: that one is fitted, as small, and its learned weights given."""
        parent = (load_recipe(self.recipe).sections["model"].get("init_args") or {}).get("start")
        if parent is None or "model.start" in self.settings:
            return {}
        path = self.folder / f"{parent}-{self.suite.name}-{self.dataset}.safetensors"
        if not path.exists():
            self._learn(parent, path)
        return {"model.start": str(path)}

    def _learn(self, parent: str, path: Path) -> None:
        """Fit that recipe and write its learned weights; those of a packaged recipe on mini once for many checks."""
        shared = {key: value for key, value in self.settings.items() if key == "model.template_set"}
        packaged = parent in known_recipes() and self.suite == load_suite("mini")
        known = (parent, self.dataset, str(shared))
        if packaged and known in LEARNED:
            path.write_bytes(LEARNED[known])
            return
        other = Subject(parent, self.folder, self.suite, self.dataset, shared)
        with other.cli() as cli:
            other.fit(cli)
            cli.model.save(path, parent)
        if packaged:
            LEARNED[known] = path.read_bytes()

    @contextmanager
    def cli(self, **settings: Any) -> Iterator[ClipbenchCLI]:
        """Method, data and trainer, the method set up."""
        request = self.request()
        config = cell_config(request, request.recipes[0], self.dataset, self.suite.datasets[self.dataset], seed=1)
        config = with_precision(merge(config, from_dotted(settings)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ClipbenchWarning)
            built = build(config)
            built.model.setup(task=built.datamodule.task, train_seed=built.datamodule.train_seed)
            yield built

    def fit(self, cli: ClipbenchCLI, *callbacks: L.Callback) -> None:
        """Train, if anything is learned."""
        cli.trainer.callbacks.extend(callbacks)  # type: ignore[attr-defined]
        if cli.model.learns:
            cli.trainer.fit(cli.model, datamodule=cli.datamodule)


def images_of(cli: ClipbenchCLI, count: int = 8) -> Tensor:
    """Normalised pixels (count, 3, H, W) of the first test images."""
    batch = next(iter(cli.datamodule.test_dataloader()[0]))
    return cli.model.backbone.normalise(batch.image[:count])


def learned_by(method: Method) -> Mapping[str, Tensor]:
    """What fitting moves, by name: the trained tensors, or what is stored where a method learns without training."""
    return method.adapter_state_dict() if type(method).learns else method.trainable


def tensors_of(method: Method) -> dict[str, Tensor]:
    """Copies of all parameters and buffers of method and backbone."""
    state = {**dict(method.named_parameters()), **dict(method.named_buffers())}
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def scores(method: Method, images: Tensor, classnames: tuple[str, ...]) -> Tensor:
    """Logits of images for classes in eval mode, without gradient."""
    method.eval()
    with torch.no_grad():
        return method.logits(method.image_features(images), method.class_features(classnames))


def pretrained_logits(method: Method, images: Tensor, classnames: tuple[str, ...]) -> Tensor:
    """Zero-shot CLIP's logits of images with the method's templates."""
    twin = method.backbone.pretrained
    return twin.logits(twin.encode_image(images), method.prompts.pretrained_features(classnames))
