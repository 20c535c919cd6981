"""What images are prepared for where no method says it: the backbone of the suite that the dataset is part of."""

from __future__ import annotations

from clipbench.backbone.spec import Preprocessing, resolve_spec
from clipbench.resources import configs_dir
from clipbench.yaml_files import read_yaml

REAL = "clip11"  # whose backbone holds for data that is part of no packaged suite


def backbone_of_suite(suite: str) -> str:
    """Name of the backbone of a packaged suite; for all other data that of the real benchmark.

    Example:
        >>> backbone_of_suite("mini"), backbone_of_suite("own")
        ('mini', 'ViT-B-16/openai')
    """
    path = configs_dir() / "suites" / f"{suite}.yaml"
    return str(read_yaml(path if path.is_file() else path.with_stem(REAL))["backbone"])


def preprocessing_of_suite(suite: str) -> Preprocessing:
    """Size, interpolation and resize mode that the suite's backbone expects."""
    return resolve_spec(backbone_of_suite(suite)).preprocessing
