"""How far features moved: cosine between tuned and pretrained features, per class of every test split, after the fit.

Text: the class features that the split is scored with against those of the pretrained text tower on the same templates.
Images: the features of the test images of the class, mean over the images. A class that the pretrained model answers
for (`novel_rule=frozen`) has not moved. Both are 1 where nothing changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clipbench.bench.build import build
from clipbench.bench.plan import PlannedCell
from clipbench.data.base import DataModule
from clipbench.data.templates import templates_for_task
from clipbench.errors import ConfigError
from clipbench.methods.base import Method
from clipbench.methods.weights_file import read_header
from clipbench.recipes.recipe import merge
from clipbench.recipes.suites import Suite
from clipbench.records.store import RecordStore, read_record

COLUMNS = (
    "dataset", "seed", "split", "trained", "label", "class", "images",
    "text_cosine", "image_cosine", "image_cosine_min",
)  # fmt: skip
"""Columns of the CSV file; what each means stands in docs/analysis.md."""
Rows = list[dict[str, Any]]


def cosine(now: Tensor, before: Tensor) -> Tensor | None:
    """Cosine (N,) of rows (N, D) in float64; None where a method's features live in another space."""
    if now.shape != before.shape:
        return None
    return F.cosine_similarity(now.detach().double(), before.detach().double(), dim=-1)


@torch.inference_mode()
def feature_rows(method: Method, data: DataModule) -> Rows:
    """One row per class of every test split.

    Args:
        method: built, with what it learned in place, and bound to the protocol's task.
        data: of the same task.

    Returns:
        `text_cosine`; `image_cosine`, the mean over the `images` of the class, and the lowest of them.

    Raises:
        DataError: test images are missing or damaged.
    """
    data.setup("test")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    method.eval().to(device)
    rows: Rows = []
    for split, loader in zip(data.task.tests, data.test_dataloader(), strict=True):
        elsewhere = split.dataset is not None  # it has its own sentences
        templates = templates_for_task(method.template_set, split) if elsewhere else method.templates
        with method.prompts.using(templates):
            pretrained = method.prompts.pretrained_features(split.classnames)
            answers = method.novel_rule == "own" or split.trained
            text = cosine(method.class_features(split.classnames) if answers else pretrained, pretrained)
        found: list[list[float]] = [[] for _ in split.classnames]
        for batch in loader:
            moved = _images(method, answers, batch.image.to(device))
            if moved is not None:
                for label, value in zip(batch.label.tolist(), moved.tolist(), strict=True):
                    found[label].append(value)
        for label, name in enumerate(split.classnames):
            values = found[label]
            rows.append(
                {
                    "dataset": data.dataset,
                    "seed": data.train_seed,
                    "split": split.name,
                    "trained": split.trained,
                    "label": label,
                    "class": name,
                    "images": len(values),
                    "text_cosine": None if text is None else float(text[label]),
                    "image_cosine": sum(values) / len(values) if values else None,
                    "image_cosine_min": min(values, default=None),
                }
            )
    return rows


def _images(method: Method, answers: bool, images: Tensor) -> Tensor | None:
    """Cosine (B,) of the features of uint8 images now to those of the pretrained image tower."""
    pixels = method.backbone.normalise(images)
    before = method.backbone.pretrained.encode_image(pixels)
    return cosine(method.image_features(pixels) if answers else before, before)


def of_cell(planned: PlannedCell, store: RecordStore) -> Rows:
    """The rows of a cell of the bench that is done, from its learned weights.

    Raises:
        MethodError: the weights do not fit.
    """
    cli = build(planned.config)
    path, data = store.weights_for(planned.cell, planned.key), cli.datamodule
    method = Method.load(path) if path.is_file() else cli.model  # one that trains nothing has none
    method.setup(task=data.task, train_seed=data.train_seed)
    rows = feature_rows(method, data)
    return [row | {"dataset": planned.cell.dataset} for row in rows]


def of_weights(path: Path, suite: Suite, protocol: str, root: str | None) -> Rows:
    """The rows of learned weights on the test images of their dataset.

    Args:
        path: the file; where its record lies beside it, data and protocol are those of the record.
        suite: where the dataset is looked up otherwise.
        protocol: name of the protocol otherwise.
        root: where the real datasets lie otherwise.

    Raises:
        MethodError: no learned weights, or some that do not fit.
        ConfigError: their dataset is not in the suite, or they were learned on other classes than the protocol's.
    """
    header = read_header(path)
    record = path.parent.parent / "records" / f"{path.stem}.json"
    if record.is_file():
        found = read_record(record)
        section, protocol = found.data["config"]["data"], found.cell.protocol
    else:
        section = suite.choose([header.dataset])[header.dataset]
        if root and section["class_path"] == "FewShotDataModule":
            section = section | {"init_args": section["init_args"] | {"root": root}}
    whole = {"model": {"class_path": "ZeroShot", "init_args": {"backbone": header.backbone}}, "data": section}
    whole["trainer"] = {"logger": False, "enable_checkpointing": False}
    data = build(merge(whole, {"data": {"init_args": {"protocol": protocol}}})).datamodule
    method = Method.load(path)
    if data.task.train != method.classnames:
        raise ConfigError(
            f"'{path}' was trained on {len(method.classnames)} classes from '{method.classnames[0]}' on, which are not "
            f"those of protocol {protocol} on {header.dataset}; name its --protocol and --suite"
        )
    method.setup(task=data.task, train_seed=data.train_seed)
    return feature_rows(method, data)
