"""Chunk maths where the chunks begin anew with every document; `chunking.py` has it for one grid over the sequence.

In each document all is as in a sequence of its own: its trailing tokens belong to no chunk, and one shorter than W
tokens has none. So samples of one batch differ in where their chunks lie and in how many they have, at most
C = S // W; the rest of the C rows is padding, of zeros, that no token receives. The reference is a loop over positions
(tests/unit/model/test_document_chunks.py).

Shapes: S tokens of the whole sequence, T tokens at hand (all of them, or a part), B batch, H hidden, W tokens a
chunk, C = S // W rows for chunks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from contextlm.model.documents import Documents


class DocumentChunks:
    """Where the chunks of a micro-batch lie.

    Args:
        documents: of the S tokens.
        chunk_size: W, at most S.

    Attributes:
        is_chunk_CB: whether there is such a chunk, or else padding; the chunks of a sample come first.
    """

    def __init__(self, documents: Documents, chunk_size: int) -> None:
        self._documents, self._chunk_size = documents, chunk_size
        batch_size, length = documents.positions_BS.shape
        self._ends_BS = (documents.positions_BS + 1) % chunk_size == 0
        self._complete_BS = self._ends_BS.cumsum(dim=1)
        count = torch.arange(1, length // chunk_size + 1, device=self._ends_BS.device)
        # Chunk k - 1 ends with the first token by which k chunks are complete; S where a sample has fewer.
        self._last_CB = torch.searchsorted(self._complete_BS, count.repeat(batch_size, 1)).T
        self.is_chunk_CB = self._last_CB < length

    def pool(self, hidden_TBH: Tensor, pooling: str, first_token: int = 0) -> Tensor:
        """One embedding per chunk, zeros for padding, [C, B, H]; of a part of the sequence, its share.

        Args:
            hidden_TBH: token states.
            pooling: "mean", "last" or "first".
            first_token: position of the first token at hand.
        """
        num_tokens, batch_size, hidden_size = hidden_TBH.shape
        width = self._chunk_size
        back = {"mean": range(width - 1, -1, -1), "first": (width - 1,), "last": (0,)}[pooling]
        tokens_CKB = torch.stack([self._last_CB - first_token - tokens for tokens in back], dim=1)
        is_here_CKB = self.is_chunk_CB[:, None] & (tokens_CKB >= 0) & (tokens_CKB < num_tokens)
        states = _rows(hidden_TBH, tokens_CKB.flatten(0, 1), is_here_CKB.flatten(0, 1))
        return states.view(-1, len(back), batch_size, hidden_size).mean(dim=1)

    def spread(self, prediction_CBH: Tensor, num_tokens: int, shift: bool, first_token: int = 0) -> Tensor:
        """The prediction that each token receives, [T, B, H]: zero before the first one of its document.

        Args:
            prediction_CBH: prediction k stands for chunk k + 1, if that is in the same document.
            num_tokens: T.
            shift: whether a chunk's last token already receives the next chunk's prediction.
            first_token: position of the first token at hand.
        """
        width, positions_BS = self._chunk_size, self._documents.positions_BS
        place_BS = positions_BS + 1 if shift else positions_BS
        complete_BS = self._complete_BS if shift else self._complete_BS - self._ends_BS.long()
        # Each copy of a prediction goes to one token, for the reason that `chunking.spread` gives.
        copy_BS = (complete_BS - 1) * width + place_BS % width
        here = slice(first_token, first_token + num_tokens)
        copies = prediction_CBH.repeat_interleave(width, dim=0)
        return _rows(copies, copy_BS.T[here], (place_BS >= width).T[here])

    def angles(self, angles_SB1D: Tensor) -> Tensor:
        """Rotation angles of the chunks, [C, B, 1, D]: those of their first tokens."""
        first_CB = (self._last_CB - (self._chunk_size - 1)).clamp(max=len(angles_SB1D) - 1)
        return angles_SB1D[first_CB, torch.arange(first_CB.shape[1], device=first_CB.device)]

    def documents(self) -> Documents | None:
        """The documents of the predictor's attention, whose positions are chunks; None if it sees across them."""
        if not self._documents.isolated:
            return None
        last_BC = self._last_CB.T
        last_positions_BC = self._documents.positions_BS.gather(1, last_BC.clamp(max=self._ends_BS.shape[1] - 1))
        # Each row of padding is a document of its own: it sees itself alone, and nothing sees it.
        positions_BC = torch.where(self.is_chunk_CB.T, last_positions_BC // self._chunk_size, 0)
        return Documents(positions_BC, isolated=True)


def _rows(rows_RBH: Tensor, index_TB: Tensor, is_there_TB: Tensor) -> Tensor:
    """Row index[t, b] of sample b where it is there, else zeros: [T, B, H].

    No row is asked for twice in one sample but to be replaced by zeros, so the sums of the backward pass add zeros to
    one gradient, in whatever order.
    """
    index = index_TB.clamp(0, len(rows_RBH) - 1)[..., None].expand(-1, -1, rows_RBH.shape[-1])
    return rows_RBH.gather(0, index).masked_fill(~is_there_TB[..., None], 0)
