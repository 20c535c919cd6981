"""Noise of a training step (dropout, dropped gradients): a function of seed, purpose and step alone."""

from __future__ import annotations

import torch

from clipbench.randomness import key


class Noise:
    """Generators that start anew with every step, so that a run can be resumed or repeated from any step.

    Args:
        seed: the train seed.
        purpose: what the noise is for.
    """

    def __init__(self, seed: int, purpose: str) -> None:
        self.seed, self.purpose = seed, purpose
        self._step: tuple[int, ...] = (0,)
        self._generators: dict[torch.device, torch.Generator] = {}

    def begin_step(self, *step: int) -> None:
        """From here on the noise is that of a step: optimiser steps done, and perhaps which batch of it."""
        self._step = step
        self._generators.clear()

    def generator(self, device: torch.device | str) -> torch.Generator:
        """The generator of this step on a device; who draws from it goes on where the last one stopped."""
        device = torch.device(device)
        if device not in self._generators:
            seed = key(self.seed, self.purpose, *self._step)
            self._generators[device] = torch.Generator(device).manual_seed(seed)
        return self._generators[device]
