"""A record as a request: the one cell that it is of."""

from __future__ import annotations

import pytest

from clipbench.recipes.recorded import request_of
from clipbench.records.store import Record
from tests.records.records import cell, record


@pytest.mark.parametrize("kind", ["FewShotDataModule", "ImageFolder", "Manifest"])
def test_the_request_is_of_the_cell_and_images_may_lie_elsewhere(kind: str) -> None:
    data = {"class_path": f"clipbench.data.module.{kind}", "init_args": {"root": "photos", "shots": 4, "batch_size": 8}}
    of = cell(shots=4, seed=7, protocol="few_shot", setting="fixed", suite="mine", dataset="d")
    one = Record(record(of, config={"model": {"class_path": "CoOp", "init_args": {"backbone": "mini"}}, "data": data}))
    request = request_of(one)
    assert (request.shots, request.seeds, request.protocol, request.setting) == (4, (7,), "few_shot", "fixed")
    assert request.suite.datasets == {"d": {"class_path": kind, "init_args": {"root": "photos"}}}
    assert request.recipes[0].sections["data"] == {"init_args": {"batch_size": 8}}
    assert request.recipes[0].sections["model"] == {"class_path": "CoOp", "init_args": {}}
    assert request_of(one, "elsewhere").suite.datasets["d"]["init_args"] == {"root": "elsewhere"}
