"""`vpt_shallow` against muzairkhattak/multimodal-prompt-learning `trainers/vpt.py` with a depth of 1."""

from __future__ import annotations

from functools import partial

from tools.agreement.compare import run
from tools.agreement.vpt import measure

if __name__ == "__main__":
    differences = "prompts in float32 instead of half; settings of `vpt`, as no shallow one was released"
    repository = "muzairkhattak/multimodal-prompt-learning"
    run("vpt_shallow", repository, differences, partial(measure, recipe="vpt_shallow", depth=1))
