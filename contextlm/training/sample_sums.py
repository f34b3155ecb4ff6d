"""The loss of each sample beside that of its micro-batch.

Shapes: B samples of a micro-batch, S tokens of a sample, M micro-batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from contextlm.model.token_batch import TokenBatch
from contextlm.training.token_sums import TokenSums


@dataclass(frozen=True, kw_only=True)
class SampleSums(TokenSums):
    """Sums over the tokens of a micro-batch, and behind them those of each sample: [B losses, B tokens].

    Attributes:
        samples: B.
    """

    samples: int

    @property
    def size(self) -> int:
        """How many sums."""
        return super().size + 2 * self.samples

    def of(self, loss_BS: Tensor, batch: TokenBatch) -> Tensor:
        """The sums of one micro-batch, fp64 [size], on the device."""
        losses_BS = loss_BS.detach().double()
        scored_BS = torch.ones_like(losses_BS) if batch.scored_BS is None else batch.scored_BS.double()
        losses_BS = losses_BS.masked_fill(scored_BS == 0, 0)
        return torch.cat((super().of(loss_BS, batch), losses_BS.sum(dim=1), scored_BS.sum(dim=1)))

    @staticmethod
    def losses(sums: Tensor, samples: int) -> Tensor:
        """The loss of each sample, fp64 [M, B], from the sums of micro-batches [M, size]."""
        return sums[:, -2 * samples : -samples] / sums[:, -samples:].clamp(min=1)
