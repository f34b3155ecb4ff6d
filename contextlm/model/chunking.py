"""Chunk maths: pool tokens into contexts, and give each token the prediction for its chunk.

Pure tensor functions, torch only; the reference that they are tested against is a loop over positions
(tests/unit/model/test_chunking.py). docs/method.md derives the alignment. Each works on a part of the
sequence too: under sequence parallelism a rank holds consecutive tokens that need not begin with a chunk.

Shapes: S tokens of the whole sequence, T tokens at hand (all of them, or a part), B batch, H hidden, W tokens a
chunk, C = S // W complete chunks.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pool(
    hidden_TBH: Tensor, chunk_size: int, pooling: str, first_token: int = 0, sequence_length: int | None = None
) -> Tensor:
    """One embedding per complete chunk, [C, B, H]; the trailing S mod W tokens belong to none.

    Of a part of the sequence, its share: the shares of all parts sum up to the embeddings.

    Args:
        hidden_TBH: token states.
        chunk_size: W >= 1.
        pooling: "mean", "last" or "first".
        first_token: position of the first token at hand.
        sequence_length: S; T if not given.
    """
    num_tokens, batch_size, hidden_size = hidden_TBH.shape
    num_chunks = (num_tokens if sequence_length is None else sequence_length) // chunk_size
    begin = min(first_token, num_chunks * chunk_size)
    end = min(first_token + num_tokens, num_chunks * chunk_size)
    # Zeros complete the first and the last chunk, if parts of them are elsewhere: they add nothing to a share.
    complete = _pad(hidden_TBH[: end - begin], begin % chunk_size, -end % chunk_size)
    chunks_CWBH = complete.reshape(-1, chunk_size, batch_size, hidden_size)
    pooled = chunks_CWBH.mean(dim=1) if pooling == "mean" else chunks_CWBH[:, {"first": 0, "last": -1}[pooling]]
    first_chunk = begin // chunk_size
    return _pad(pooled, first_chunk, num_chunks - first_chunk - pooled.shape[0])


def spread(prediction_CBH: Tensor, num_tokens: int, chunk_size: int, shift: bool, first_token: int = 0) -> Tensor:
    """The prediction that each token receives, [T, B, H].

    Token t receives prediction j(t) = (t + 1) // W - 1, or t // W - 1 without the shift, and zero where
    j(t) < 0. Prediction k has read chunks 0..k, whose last token is (k + 1) W - 1 <= t: causal.

    Args:
        prediction_CBH: prediction k stands for chunk k + 1.
        num_tokens: T.
        chunk_size: W.
        shift: whether a chunk's last token already receives the next chunk's prediction.
        first_token: position of the first token at hand.
    """
    # Repeating each prediction W times and sliding the result right says the same as indexing by j(t); its
    # backward is a sum over W, where that of indexing is a scatter-add, slow and not deterministic on CUDA.
    num_without = chunk_size - 1 if shift else chunk_size
    begin, end = (max(token - num_without, 0) for token in (first_token, first_token + num_tokens))
    first_chunk, end_chunk = begin // chunk_size, -(-end // chunk_size)
    repeated = prediction_CBH[first_chunk:end_chunk].repeat_interleave(chunk_size, dim=0)
    offset = first_chunk * chunk_size
    return _pad(repeated[begin - offset : end - offset], num_tokens - (end - begin), 0)


def _pad(rows: Tensor, before: int, after: int) -> Tensor:
    """`rows` [R, B, H] between rows of zeros."""
    return torch.nn.functional.pad(rows, (0, 0, 0, 0, before, after)) if before or after else rows
