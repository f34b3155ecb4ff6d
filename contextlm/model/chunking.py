"""Chunk maths: pool tokens into contexts, and give each token the prediction for its chunk.

Pure tensor functions, torch only; the reference that they are tested against is a loop over positions
(tests/unit/model/test_chunking.py). docs/method.md derives the alignment.

Shapes: S tokens, B batch, H hidden, W tokens a chunk, C = S // W complete chunks.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pool(hidden_SBH: Tensor, chunk_size: int, pooling: str) -> Tensor:
    """One embedding per complete chunk, [C, B, H]; the trailing S mod W tokens belong to none.

    Args:
        hidden_SBH: token states.
        chunk_size: W >= 1.
        pooling: "mean", "last" or "first".
    """
    sequence_length, batch_size, hidden_size = hidden_SBH.shape
    num_chunks = sequence_length // chunk_size
    complete = hidden_SBH[: num_chunks * chunk_size]
    chunks_CWBH = complete.reshape(num_chunks, chunk_size, batch_size, hidden_size)
    if pooling == "mean":
        return chunks_CWBH.mean(dim=1)
    return chunks_CWBH[:, {"first": 0, "last": -1}[pooling]]


def spread(prediction_CBH: Tensor, sequence_length: int, chunk_size: int, shift: bool) -> Tensor:
    """The prediction that each token receives, [S, B, H].

    Token t receives prediction j(t) = (t + 1) // W - 1, or t // W - 1 without the shift, and zero where
    j(t) < 0. Prediction k has read chunks 0..k, whose last token is (k + 1) W - 1 <= t: causal.

    Args:
        prediction_CBH: prediction k stands for chunk k + 1.
        sequence_length: S, with C = S // W.
        chunk_size: W.
        shift: whether a chunk's last token already receives the next chunk's prediction.
    """
    # Repeating each prediction W times and sliding the result right says the same as indexing by j(t); its
    # backward is a sum over W, where that of indexing is a scatter-add, slow and not deterministic on CUDA.
    repeated_SBH = prediction_CBH.repeat_interleave(chunk_size, dim=0)
    num_without = chunk_size - 1 if shift else chunk_size
    zeros = prediction_CBH.new_zeros(min(num_without, sequence_length), *prediction_CBH.shape[1:])
    return torch.cat((zeros, repeated_SBH), dim=0)[:sequence_length]
