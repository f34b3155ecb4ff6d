"""Losses and gradient norms that are far above those of the iterations before: `--skip-spikes`.

The last values lie on the device, and so does the answer: the host asks nothing. Every rank holds the same window.
"""

from __future__ import annotations

import torch
from torch import Tensor

WINDOW = 128  # iterations that are remembered
LEAST = 64  # of them, before anything is called a spike
SIGMAS = 6.0


class Spikes:
    """The loss and the gradient norm of the last iterations that updated, as OLMo-core has them.

    Attributes:
        values: fp64 [2, WINDOW], a ring.
        count: int64 [1], how many values were ever put into it.
    """

    def __init__(self, device: torch.device) -> None:
        self.values = torch.zeros(2, WINDOW, dtype=torch.float64, device=device)
        self.count = torch.zeros(1, dtype=torch.int64, device=device)
        self._places = torch.arange(WINDOW, device=device)

    def among(self, seen: Tensor) -> Tensor:
        """Whether loss and gradient norm [2] are above their mean by more than 6 standard deviations: bool [2]."""
        is_filled = self._places < self.count
        number = self.count.clamp(max=WINDOW)
        mean = self.values.sum(dim=1) / number  # what is not filled is 0
        square = torch.where(is_filled, self.values - mean.unsqueeze(1), 0).square().sum(dim=1)
        deviation = (square / (number - 1)).sqrt()
        return (seen > mean + SIGMAS * deviation) & (self.count >= LEAST)

    def keep(self, seen: Tensor, updated: Tensor) -> None:
        """Remember loss and gradient norm [2] of an iteration, if it updated (a truth value on the device)."""
        is_place = (self._places == self.count % WINDOW) & updated
        self.values = torch.where(is_place, seen.unsqueeze(1), self.values)
        self.count = self.count + updated

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps, by name."""
        return {"values": self.values, "count": self.count}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Put back what `state` gave."""
        self.values.copy_(state["values"])
        self.count.copy_(state["count"])
