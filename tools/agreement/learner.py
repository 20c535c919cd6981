"""The prompt learners of CoOp's code and of what is built on it: their config, and their tensors by our names."""

from __future__ import annotations

from typing import Any

from torch import nn

from tools.agreement.checkout import config

NETWORK = {
    f"meta_net.linear{number}.{kind}": f"meta_net.{place}.{kind}"
    for number, place in ((1, 0), (2, 2)) for kind in ("weight", "bias")
}  # fmt: skip


def coop_config(dataset: str = "SUN397", **settings: Any) -> Any:
    """What the code reads of its config, with settings over those of four shared vectors at the end."""
    coop = {"N_CTX": 4, "CTX_INIT": "a photo of a", "CSC": False, "CLASS_TOKEN_POSITION": "end", "PREC": "fp32"}
    return config(
        TRAINER={"COOP": coop | settings, "COCOOP": coop}, DATASET={"NAME": dataset}, OPTIM=None,
        MODEL={"BACKBONE": {"NAME": "tiny"}, "INIT_WEIGHTS": ""},
    )  # fmt: skip


def context(model: Any) -> dict[str, nn.Parameter]:
    """The learned context of a model."""
    return {"context.vectors": model.prompt_learner.ctx}


def context_and_network(model: Any) -> dict[str, nn.Parameter]:
    """The same, and the small network beside it."""
    names = {"ctx": "context.vectors"} | NETWORK
    return {names[name]: parameter for name, parameter in model.prompt_learner.named_parameters()}
