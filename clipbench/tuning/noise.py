"""Noise of a training step (dropout, dropped gradients): a function of seed, purpose and step alone."""

from __future__ import annotations

import torch

from clipbench.randomness import key


class Noise:
    """Generators that start anew with every step, so that a run can be resumed or repeated from any step.

    Args:
        seed: the run's `train_seed`.
        purpose: words that tell this stream of numbers from others of the same seed, as "gradient dropout".
    """

    def __init__(self, seed: int, purpose: str) -> None:
        self.seed, self.purpose = seed, purpose
        self._step: tuple[int, ...] = (0,)
        self._generators: dict[torch.device, torch.Generator] = {}

    def begin_step(self, *step: int) -> None:
        """Start the generators anew for a step.

        Args:
            step: the number of optimiser steps done; where gradients are accumulated also the batch's number in the
                step.
        """
        self._step = step
        self._generators.clear()

    def generator(self, device: torch.device | str) -> torch.Generator:
        """The generator of this step on a device; who draws from it goes on where the last one stopped."""
        device = torch.device(device)
        if device not in self._generators:
            seed = key(self.seed, self.purpose, *self._step)
            self._generators[device] = torch.Generator(device).manual_seed(seed)
        return self._generators[device]
