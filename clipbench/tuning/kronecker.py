"""The Fisher estimate of the published FisherAdapTune: activations times output gradients, caught by hooks.

For a Linear with input rows h (all images and tokens, 1 appended where there is a bias) and output gradients s:

    H_i = mean over rows of h^2      S_i = mean over rows of s^2
    H <- (1 - g0) H + g1 H_i ,  S <- (1 - g0) S + g1 S_i     from H = S = 1, (g0, g1) = (0.8, 0.8)
    F = outer(S, H): first columns the weight, last column the bias

What is wrong with it, kept by default because the mode `faithful` is to show what the published code does: the counter
of steps that the average needs is never advanced, so every step starts from ones again and F = (0.2 + 0.8 H_i)
(0.2 + 0.8 S_i). Gradients of a mean loss are tiny, so S is 0.2 plus nothing: F is the energy of the activations, and a
loss ten times as large changes it by a percent at most. `accumulate` is the average as it was meant.

Source: AtlasAnalyticsLab/FisherAdapTune@ebdb854 scripts/adafisher.py, read and written anew. Differences: our text
tower runs on the tokens that matter and on the shared prefix once, so its rows are those and not 77 positions a class,
and rows of several calls in a step are pooled; its LayerNorms see (rows, W), so that "dimension 1" is the channels; our
patch embedding is a Linear over pixels, so its H is the mean over patches, where the published convolution without bias
divides their sum by the number of images. A bias whose weight is not trained has F = 0, as there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

HOOKED = (nn.Linear, nn.Conv2d, nn.BatchNorm2d, nn.LayerNorm)  # these classes themselves, as published
PACKED = ("attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.out_proj")


@dataclass
class _Sums:
    """What one module has shown in one step."""

    h: Tensor | None = None
    s: Tensor | None = None
    rows_in: int = 0
    rows_out: int = 0
    calls: int = 0
    averages: dict[str, Tensor] = field(default_factory=dict)

    def clear(self) -> None:
        """Forget the step, keep the averages."""
        self.h = self.s = None
        self.rows_in = self.rows_out = self.calls = 0


class KroneckerFisher:
    """Hooks on the modules that own the trained tensors.

    Args:
        root: module that contains the owners of `tensors`; the hooks are put on these.
        tensors: the trained parameters by name, whose Fisher values are estimated.
        gammas: (g0, g1) of the running averages: each becomes (1 - g0) times itself plus g1 times the step's mean.
        accumulate: whether the averages go on from step to step; if not, every step starts them from ones, as
            published.
        packed_attention: whether to leave q, k, v and out projections without hooks, as torch's packed attention,
            which does not call them, leaves them in the published code; their F is 0.
    """

    def __init__(
        self,
        root: nn.Module,
        tensors: Mapping[str, nn.Parameter],
        gammas: tuple[float, float] = (0.8, 0.8),
        accumulate: bool = False,
        packed_attention: bool = True,
    ) -> None:
        self.gammas, self.accumulate = gammas, accumulate
        self.listening = True
        names = {id(tensor): name for name, tensor in tensors.items()}
        self._owned: dict[str, tuple[nn.Module, str]] = {}
        self._sums: dict[nn.Module, _Sums] = {}
        self._handles: list[Any] = []
        for path, module in root.named_modules():
            kind = parametrize.type_before_parametrizations(module)
            if kind not in HOOKED or (packed_attention and path.endswith(PACKED)):
                continue
            parameters = dict(module.named_parameters(recurse=False))
            weight = parameters.get("weight")
            if weight is None or id(weight) not in names:
                continue
            self._owned |= {names[id(p)]: (module, leaf) for leaf, p in parameters.items() if id(p) in names}
            self._sums[module] = _Sums()
            self._handles.append(module.register_forward_hook(self._called))

    def begin_step(self, listening: bool) -> None:
        """Forget the last step; whether to listen in this one."""
        self.listening = listening
        for sums in self._sums.values():
            sums.clear()

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def end_step(self) -> None:
        """Move the averages on by what the step has shown."""
        for module, sums in self._sums.items():
            if sums.h is None or sums.s is None:
                continue
            shown = _factors_of_norm(sums) if _is_norm(module) else (sums.h / sums.rows_in, sums.s / sums.rows_out)
            for key, now in zip("HS", shown, strict=True):
                before = sums.averages.get(key) if self.accumulate else None
                start = torch.ones_like(now) if before is None else before
                sums.averages[key] = (1 - self.gammas[0]) * start + self.gammas[1] * now

    def estimate(self, names: Iterable[str]) -> dict[str, Tensor | None]:
        """F of tensors by name, of their shapes; None where no hook has seen them, which is F = 0."""
        found: dict[str, Tensor | None] = {}
        for name in names:
            module, leaf = self._owned.get(name, (None, ""))
            sums = self._sums[module] if module is not None else _Sums()
            if module is None or "H" not in sums.averages:
                found[name] = None
                continue
            h, s = sums.averages["H"], sums.averages["S"]
            if _is_norm(module):
                estimate = s * (h[0] if leaf == "weight" else h[1])
            elif leaf == "bias":
                estimate = s * h[-1]
            else:
                weight = module.get_parameter("weight")
                columns = h[: weight[0].numel()]
                estimate = torch.outer(s, columns).view(weight.shape)
            found[name] = estimate.abs().nan_to_num_(nan=0.0)
        return found

    def state(self) -> list[dict[str, Tensor]]:
        """The averages, for a checkpoint."""
        return [dict(sums.averages) for sums in self._sums.values()]

    def resume(self, state: Sequence[Mapping[str, Tensor]]) -> None:
        """Go on from a checkpoint, on the devices of the modules."""
        for (module, sums), averages in zip(self._sums.items(), state, strict=True):
            device = module.get_parameter("weight").device
            sums.averages = {key: average.to(device) for key, average in averages.items()}

    def factors(self, name: str) -> tuple[Tensor, Tensor]:
        """The averages (H, S) behind a tensor's estimate."""
        module, _ = self._owned[name]
        averages = self._sums[module].averages
        return averages["H"], averages["S"]

    def _called(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not (self.listening and torch.is_grad_enabled() and output.requires_grad):
            return
        sums = self._sums[module]
        with torch.no_grad():
            self._take_input(module, inputs[0].detach(), sums)
        output.register_hook(self._taker(module, sums))

    def _take_input(self, module: nn.Module, h: Tensor, sums: _Sums) -> None:
        if _is_norm(module):
            shown = _input_factors_of_norm(h.float())
            sums.calls += 1
        else:
            rows = _rows_of(module, h.float())
            shown = rows.square().sum(dim=0)
            sums.rows_in += _divisor(module, h, rows)
            if getattr(module, "bias", None) is not None:
                shown = torch.cat([shown, shown.new_tensor([float(len(rows))])])
        sums.h = shown if sums.h is None else sums.h + shown

    def _taker(self, module: nn.Module, sums: _Sums) -> Callable[[Tensor], None]:
        def take(grad: Tensor) -> None:
            s = grad.detach().float()
            channels = 1 if isinstance(module, nn.Conv2d | nn.BatchNorm2d) else -1
            rows = s.movedim(channels, -1).flatten(0, -2)
            shown = rows.sum(dim=0) if _is_norm(module) else rows.square().sum(dim=0)
            sums.rows_out += len(s) if _is_norm(module) else len(rows)
            sums.s = shown if sums.s is None else sums.s + shown

        return take


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm2d | nn.LayerNorm)


def _rows_of(module: nn.Module, h: Tensor) -> Tensor:
    """Input rows (N, in): tokens of a Linear, unfolded patches of a convolution."""
    if not isinstance(module, nn.Conv2d):
        return h.flatten(0, -2)
    patches = F.unfold(h, module.kernel_size, module.dilation, module.padding, module.stride)  # type: ignore[arg-type]
    return patches.transpose(1, 2).flatten(0, 1)


def _divisor(module: nn.Module, h: Tensor, rows: Tensor) -> int:
    """What the sum over rows is divided by: rows; of a convolution images, or with a bias rows times length [code]."""
    if not isinstance(module, nn.Conv2d):
        return len(rows)
    return len(h) if module.bias is None else rows.numel()


def _input_factors_of_norm(h: Tensor) -> Tensor:
    """(sum_j u_j^2 / B^2, size of dim 1 / B^2) with u_j = sum of h over all dimensions but dim 1, over C^2.

    C is the product of the summed sizes other than the batch: dim 1 is taken for the channels, and with tokens
    (B, L, W) it is the tokens [code].
    """
    batch, kept = len(h), h.shape[1]
    reduced = math.prod(h.shape[2:])
    u = h.movedim(1, 0).flatten(1).sum(dim=1) / reduced**2
    return torch.stack([u.square().sum(), u.new_tensor(float(kept))]) / batch**2


def _factors_of_norm(sums: _Sums) -> tuple[Tensor, Tensor]:
    """H as the mean over the calls of a step; S = (sum over all rows of s)^2 / B, per channel."""
    assert sums.h is not None
    assert sums.s is not None
    return sums.h / sums.calls, sums.s.square() / sums.rows_out
