"""Decides on the device whether an iteration updates: not with a NaN, a spike, or where it is told to skip.

A NaN in one rank's loss or gradients skips the update of all ranks. They agree by one all-reduce of two numbers on the
device, and the host learns of it with the log line (`nan_check.py`).
"""

from __future__ import annotations

import enum
import math

import torch
from torch import Tensor

from contextlm.config.schema import Config
from contextlm.training.spikes import Spikes


class Why(enum.IntEnum):
    """Why an iteration updated nothing; of two reasons it is the greater one."""

    UPDATED = 0
    TOLD = 1
    NORM_SPIKE = 2
    LOSS_SPIKE = 3
    NAN_NORM = 4
    NAN_LOSS = 5
    OVERFLOW = 6

    @property
    def word(self) -> str:
        """As in metrics.jsonl and run.json."""
        return self.name.lower().replace("_", " ")

    @property
    def sentence(self) -> str:
        """What the matter is."""
        return {
            Why.UPDATED: "nothing",
            Why.TOLD: "--iterations-to-skip names it",
            Why.NORM_SPIKE: "the gradient norm is a spike",
            Why.LOSS_SPIKE: "the loss is a spike",
            Why.NAN_NORM: "the gradient norm is NaN or infinite",
            Why.NAN_LOSS: "the loss is NaN or infinite",
            Why.OVERFLOW: "gradients overflow under this loss scale",
        }[self]

    @property
    def is_nan(self) -> bool:
        """Whether `--on-nan` is about it; an overflow is not, for it lowers the loss scale."""
        return self in (Why.NAN_NORM, Why.NAN_LOSS)

    @property
    def is_spike(self) -> bool:
        """Whether `--skip-spikes` found it."""
        return self in (Why.NORM_SPIKE, Why.LOSS_SPIKE)


_CODES = (Why.NAN_LOSS, Why.NAN_NORM, Why.LOSS_SPIKE, Why.NORM_SPIKE)


class Skipping:
    """Asked once an iteration, by all ranks; its answers are codes of `Why`, int64 scalars on the device.

    Attributes:
        spikes: the window of `--skip-spikes`; None without it.
        overflow: the answer where fp16 gradients overflow, which megatron-core finds before it has a norm.
    """

    def __init__(self, config: Config, device: torch.device) -> None:
        training = config.training
        self._checks = training.check_for_nan_in_loss_and_grad
        self._told = frozenset(map(int, training.iterations_to_skip))
        self._codes = torch.tensor(_CODES, device=device)
        self.spikes = Spikes(device) if training.skip_spikes else None
        adapts = config.optimizer.loss_scale is None
        self.overflow = torch.tensor(Why.OVERFLOW if adapts or not self._checks else Why.NAN_NORM, device=device)
        self._updated, self._named = (torch.tensor(why, device=device) for why in (Why.UPDATED, Why.TOLD))

    def why(self, iteration: int, loss: Tensor, grad_norm: Tensor) -> Tensor:
        """The code of an iteration; collective.

        Args:
            iteration: its number.
            loss: of the global batch, fp64 scalar; 0 on ranks that do not compute it.
            grad_norm: of the whole model, fp64 scalar.
        """
        told = self._named if iteration in self._told else self._updated
        if not self._checks:
            return told
        # MAX knows no NaN. What one rank sees all see, to the bit, so they decide alike.
        seen = torch.stack((loss, grad_norm)).nan_to_num(nan=math.inf, posinf=math.inf, neginf=math.inf)
        torch.distributed.all_reduce(seen, op=torch.distributed.ReduceOp.MAX)
        is_nan = seen.isinf()
        is_spike = torch.zeros_like(is_nan) if self.spikes is None else self.spikes.among(seen)
        why = torch.where(torch.cat((is_nan, is_spike)), self._codes, told).max()
        if self.spikes is not None:
            self.spikes.keep(seen, why == Why.UPDATED)
        return why
