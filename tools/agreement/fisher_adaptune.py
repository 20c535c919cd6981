"""`fisher_adaptune` against AtlasAnalyticsLab/FisherAdapTune `scripts/trainer.py`, until the first decision.

What this recipe freezes, and when, is ours (the table in `clipbench/tuning/fisher_settings.py`): no official code has
it. Compared is what goes on before: the loss, the gradients, AdamW and its decay, with no decision in the five steps,
and without the projections, for which the official estimate is 0, so that they are frozen at once.
"""

from __future__ import annotations

from pathlib import Path

import torch

from tools.agreement.checkout import official
from tools.agreement.compare import Measured, Tally, run
from tools.agreement.fisher_adaptune_faithful import RUNS, method_of, ours_trains, see, theirs_trains
from tools.agreement.tiny import write_tiny

NEVER = 100  # steps to a decision, more than there are
TRAIN = ["both towers, blocks all, everything", "both towers, LayerNorm"]


def measure(checkout: Path, scratch: Path) -> Measured:
    """Both sides on the tiny CLIP."""
    torch.set_num_threads(1)
    backbone, found, tally = write_tiny(scratch / "tiny"), Measured(), Tally()
    ours, theirs = (method_of("fisher_adaptune", backbone, {"interval": NEVER}, train=TRAIN) for _ in range(2))
    with official(checkout, "scripts.trainer") as (module,):
        theirs_seen = theirs_trains(module.FisherAdapTuneTrainer, theirs, RUNS[0], NEVER, scratch)
        see(found, ours_trains(ours), theirs_seen, tally)
    if not tally["frozen"].startswith("0 "):
        raise SystemExit(f"the official code froze {tally['frozen']} entries before any decision")
    return found


if __name__ == "__main__":
    differences = (
        "five steps before any decision, without the projections, which the official code freezes at once: what is "
        "frozen, and when, is ours and has no official code (`fisher_adaptune_faithful` follows its rule); its use on "
        "CLIP is ours, as are rate and epochs"
    )
    run("fisher_adaptune", "AtlasAnalyticsLab/FisherAdapTune", differences, measure)
