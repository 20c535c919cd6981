"""`amt` against wuw2019/R-AMT `code/trainers/masktuning.py` without its regularity (`GDR_LAMBDA` 0).

Runs: the rate of the configurations, without and with the MLP masked, and 2e-3, where masks flip within five steps.
"""

from __future__ import annotations

from functools import partial

from tools.agreement.compare import run
from tools.agreement.ramt import WIDER, measure

RUNS = ((0.0, 8e-5, False), (0.0, 8e-5, True), (0.0, 2e-3, False))

if __name__ == "__main__":
    differences = (
        "compared with `GDR_LAMBDA` 0, where a second backward pass counts for nothing; with `GDR` off the official "
        "code makes no update at all"
    )
    run("amt", "wuw2019/R-AMT", differences, partial(measure, recipe="amt", runs=RUNS), "code", WIDER)
