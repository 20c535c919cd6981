"""`fisher_adaptune_faithful` against AtlasAnalyticsLab/FisherAdapTune `scripts/trainer.py`: its trainer, as it is.

The paper knows segmentation only, so the official trainer fine-tunes our backbone, with our loss; ours runs in
Lightning's trainer. Decisions fall in the third and in the fifth step instead of after 300. Runs: attention with hooks,
as our Linears have them, and without, as those of torch's packed attention; both histograms; both statistics; slices of
rows and of columns.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from clipbench.methods.base import Method
from clipbench.methods.fisher_freezing import FisherFreezing
from tools.agreement.checkout import official
from tools.agreement.compare import Measured, Tally, our_method, our_step, run
from tools.agreement.tiny import BASE, NOVEL, batches, test_images, write_tiny

LR, DECAY, DECIDE = 1e-4, 5e-5, 2
RUNS = (
    {"packed_attention": False, "score": "released_log", "statistic": "total_variation", "slice_mode": "row"},
    {"packed_attention": True, "score": "released_log", "statistic": "total_variation", "slice_mode": "row"},
    {"packed_attention": True, "score": "released_raw", "statistic": "total_variation", "slice_mode": "column"},
    {"packed_attention": False, "score": "released_log", "statistic": "mean", "slice_mode": "column"},
)
THEIRS = {
    "released_log": "log", "released_raw": "raw", "total_variation": "total_variation", "mean": "mean_js",
}  # fmt: skip


class PackedLinear(nn.Linear):
    """A Linear of a name that the official hooks do not know, as in torch's packed attention."""


class Seen:
    """What one side did: logits and terms of every step, gradients as the optimiser takes them."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self.logits: list[Tensor] = []
        self.terms: list[Mapping[str, Tensor]] = []
        self.gradients: list[dict[str, Tensor]] = []
        self.active: dict[str, Tensor] = {}

    def keep(self, logits: Tensor, terms: Mapping[str, Tensor]) -> None:
        """Of one forward pass."""
        self.logits.append(logits.detach())
        self.terms.append({name: term.detach() for name, term in terms.items()})

    def before_step(self, *_: Any) -> None:
        """The gradients of one step."""
        grads = {name: p.grad for name, p in self.method.trainable.items()}
        self.gradients.append({name: grad.clone() for name, grad in grads.items() if grad is not None})


def method_of(recipe: str, backbone: str, freezing: Mapping[str, Any], **settings: Any) -> Method:
    """Ours, at a constant rate."""
    rates: dict[str, Any] = {"schedule": "constant", "lr": LR, "weight_decay": DECAY}
    rates |= {"warmup_epochs": 0, "warmup_steps": None, "final_lr": None}
    method = our_method(recipe, backbone, freezing=dict(freezing), **rates, **settings)
    method.backbone.normalise = lambda images: images  # type: ignore[method-assign]
    return method


def theirs_trains(trainer_of: Any, method: Method, settings: Mapping[str, Any], decide: int, scratch: Path) -> Seen:
    """The official trainer over five steps of our backbone, with decisions every so many steps."""
    seen = Seen(method)
    if settings["packed_attention"]:
        for name, module in method.backbone.named_modules():
            if ".attn." in name and isinstance(module, nn.Linear):
                module.__class__ = PackedLinear
    optimizer = torch.optim.AdamW(method.trainable.values(), lr=LR, weight_decay=0.0)

    def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        logits, terms = our_step(method, *batch)
        seen.keep(logits, terms)
        return torch.stack(list(terms.values())).sum()

    optimizer.register_step_pre_hook(seen.before_step)
    trainer = trainer_of(
        method.backbone, optimizer, batches(), step, num_epochs=1, weight_decay=DECAY, output_dir=str(scratch),
        freeze_interval=decide, fisher_slice_mode=settings["slice_mode"], disable_fisher_plots=True,
        js_distance_mode=THEIRS[settings["score"]], chunk_selection_metric=THEIRS[settings["statistic"]],
        device=torch.device("cpu"),
    )  # fmt: skip
    trainer.fit()
    seen.active = dict(trainer._param_train_masks)
    return seen


def ours_trains(method: Method) -> Seen:
    """Ours in Lightning's trainer over the same steps."""
    seen = Seen(method)
    logits_of, losses_of = method.logits, method.losses
    last: list[Tensor] = []

    def logits(features: Tensor, classes: Tensor) -> Tensor:
        last[:] = [logits_of(features, classes)]
        return last[0]

    def losses(*arguments: Tensor) -> dict[str, Tensor]:
        terms = losses_of(*arguments)
        seen.keep(last[0], terms)
        return terms

    method.logits, method.losses = logits, losses  # type: ignore[method-assign, assignment]
    method.on_before_optimizer_step = seen.before_step  # type: ignore  # called after the callbacks

    class Watch(L.Callback):
        def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            freezing = next(c for c in trainer.callbacks if isinstance(c, FisherFreezing))._freezing  # type: ignore[attr-defined]
            assert freezing is not None
            seen.active = {name: freezing.active(name) for name in method.trainable}

    quiet: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = L.Trainer(accelerator="cpu", max_epochs=1, callbacks=[Watch()], **quiet)
        trainer.fit(method, torch.utils.data.DataLoader(batches(), batch_size=None))  # type: ignore[arg-type]
    method.logits, method.losses = logits_of, losses_of  # type: ignore[method-assign]
    return seen


def measure(checkout: Path, scratch: Path) -> Measured:
    """Both sides on the tiny CLIP, in every run."""
    torch.set_num_threads(1)
    backbone, found = write_tiny(scratch / "tiny"), Measured()
    tally = Tally()
    with official(checkout, "scripts.trainer") as (module,):
        for settings in RUNS:
            freezing = {**settings, "decide_every": DECIDE, "first_decision": DECIDE}
            sides = [method_of("fisher_adaptune_faithful", backbone, freezing) for _ in range(2)]
            theirs = theirs_trains(module.FisherAdapTuneTrainer, sides[0], settings, DECIDE, scratch)
            see(found, ours_trains(sides[1]), theirs, tally)
    found.notes.append(f"after five steps {tally['frozen']} entries are frozen, {tally['differ']} differ")
    return found


def see(found: Measured, ours: Seen, theirs: Seen, tally: Tally) -> None:
    """Take in one run."""
    for name, active in theirs.active.items():
        tally.see("frozen", ~active)
        tally.see("differ", active != ours.active[name])
    steps = range(len(batches()))
    for step in steps:
        found.see("logits", ours.logits[step], theirs.logits[step])
        loss = float(sum(theirs.terms[step].values(), torch.tensor(0.0)))
        for name, term in theirs.terms[step].items():
            found.see("terms", ours.terms[step][name], term, loss)
        for name, gradient in theirs.gradients[step].items():
            found.see("gradients", ours.gradients[step][name], gradient)
    for name, parameter in theirs.method.trainable.items():
        found.see("tensors", ours.method.trainable[name], parameter)
    with torch.no_grad():
        for kind, names in (("base", BASE), ("novel", NOVEL)):
            found.see(kind, *(side.method.eval()(test_images(), names) for side in (ours, theirs)))


if __name__ == "__main__":
    differences = (
        "its use on CLIP is ours, as are rate and epochs; slices of the text tower see the positions that are "
        "computed, not 77"
    )
    run("fisher_adaptune_faithful", "AtlasAnalyticsLab/FisherAdapTune", differences, measure)
