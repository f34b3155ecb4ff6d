"""What a stream of tokens adds up to: the sums that losses are means of.

Shapes: B samples of a micro-batch, S tokens of a sample, W tokens of a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenSums:
    """Sums over the tokens of a micro-batch: [losses, tokens, bytes of text, W times the losses at a position].

    Attributes:
        byte_lengths: bytes of text of each token id, [vocabulary]; without it no bytes are counted.
        chunk_size: W; 0 leaves the sums by position out.
    """

    byte_lengths: Tensor | None = None
    chunk_size: int = 0

    @property
    def size(self) -> int:
        """How many sums."""
        return 3 + self.chunk_size

    def of(self, loss_BS: Tensor, labels_BS: Tensor) -> Tensor:
        """The sums of one micro-batch, fp64 [size], on the device; token t stands at position t mod W of a chunk."""
        losses = loss_BS.detach().float()
        num_bytes = losses.new_zeros(()) if self.byte_lengths is None else self.byte_lengths[labels_BS].sum()
        # Filled on the device: a tensor made from a number of the host's would wait for it.
        num_tokens = losses.new_full((), losses.numel(), dtype=torch.float64)
        sums = torch.stack((losses.sum().double(), num_tokens, num_bytes.double()))
        if self.chunk_size == 0:
            return sums
        # Zeros fill up the last chunk: they add nothing.
        filled = torch.nn.functional.pad(losses, (0, -losses.shape[1] % self.chunk_size))
        return torch.cat((sums, filled.view(-1, self.chunk_size).sum(dim=0, dtype=torch.float64)))


LOSS_AND_TOKENS = TokenSums()
