"""What a stream of tokens adds up to: the sums that losses are means of.

Tokens whose loss does not count are in none of them.

Shapes: B samples of a micro-batch, S tokens of a sample, W tokens of a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from contextlm.model.token_batch import TokenBatch


@dataclass(frozen=True)
class TokenSums:
    """Sums over the tokens of a micro-batch: [losses, tokens, bytes of text], and for each position of a chunk
    [W losses, W tokens].

    Attributes:
        byte_lengths: bytes of text of each token id, [vocabulary]; without it no bytes are counted.
        chunk_size: W; 0 leaves the sums by position out.
    """

    byte_lengths: Tensor | None = None
    chunk_size: int = 0

    @property
    def size(self) -> int:
        """How many sums."""
        return 3 + 2 * self.chunk_size

    def of(self, loss_BS: Tensor, batch: TokenBatch) -> Tensor:
        """The sums of one micro-batch, fp64 [size], on the device."""
        losses, scored_BS = loss_BS.detach().float(), batch.scored_BS
        # Filled on the device: a tensor made from a number of the host's would wait for it.
        num_tokens = losses.new_full((), losses.numel(), dtype=torch.float64)
        num_bytes = losses.new_zeros(())
        if self.byte_lengths is not None:
            num_bytes_BS = self.byte_lengths[batch.labels_BS]
            num_bytes = (num_bytes_BS if scored_BS is None else num_bytes_BS * scored_BS).sum()
        if scored_BS is not None:
            losses, num_tokens = losses.masked_fill(~scored_BS, 0), scored_BS.sum(dtype=torch.float64)
        sums = torch.stack((losses.sum().double(), num_tokens, num_bytes.double()))
        if self.chunk_size == 0:
            return sums
        return torch.cat((sums, self._by_position(losses, batch)))

    def _by_position(self, losses_BS: Tensor, batch: TokenBatch) -> Tensor:
        """The losses, then the tokens, at each position of a chunk, fp64 [2 W]; chunks begin where the model's do."""
        documents = batch.inputs.documents
        at = torch.arange(losses_BS.shape[1], device=losses_BS.device)
        places = (at.expand_as(losses_BS) if documents is None else documents.positions_BS) % self.chunk_size
        scored = torch.ones_like(losses_BS) if batch.scored_BS is None else batch.scored_BS
        values_2N = torch.stack((losses_BS.flatten(), scored.flatten())).double()
        return values_2N.new_zeros(2, self.chunk_size).index_add(1, places.flatten(), values_2N).flatten()


LOSS_AND_TOKENS = TokenSums()
