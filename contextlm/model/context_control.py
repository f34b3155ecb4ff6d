"""Replacements of the prediction at evaluation: does the context help, and by its content?

Each takes and gives [C, B, H] (C chunks, B batch, H hidden).
"""

from __future__ import annotations

import torch
from torch import Tensor

from contextlm.errors import UserError


def control(kind: str, prediction_CBH: Tensor, context_CBH: Tensor, is_chunk_CB: Tensor | None = None) -> Tensor:
    """What the tokens receive in place of the prediction.

    Args:
        kind: "zero"; "shuffle", another sequence's prediction; "random", noise of the same scale;
            "previous", the pooled chunk just read in place of a prediction of the next.
        prediction_CBH: the prediction.
        context_CBH: the pooled chunks.
        is_chunk_CB: which of them are chunks and which padding behind them; all are, if not given.

    Raises:
        UserError: "shuffle" with a batch of 1, which has no other sequence.
    """
    if kind == "zero":
        return torch.zeros_like(prediction_CBH)
    if kind == "shuffle":
        if prediction_CBH.shape[1] == 1:
            raise UserError("--context-control shuffle: swaps the sequences of a batch; this one has one: use more")
        others_CBH = prediction_CBH.roll(1, dims=1)  # a derangement: no sequence keeps its own
        return others_CBH if is_chunk_CB is None else _repeated(others_CBH, is_chunk_CB.roll(1, dims=1))
    if kind == "random":
        chunks = prediction_CBH if is_chunk_CB is None else prediction_CBH[is_chunk_CB]
        return torch.randn_like(prediction_CBH) * chunks.std()
    assert kind == "previous"
    return context_CBH


def _repeated(prediction_CBH: Tensor, is_chunk_CB: Tensor) -> Tensor:
    """The predictions of each sequence's chunks again and again, in place of its padding; zero if it has none."""
    counts_B = is_chunk_CB.sum(dim=0)
    index_CB = torch.arange(len(prediction_CBH), device=counts_B.device)[:, None] % counts_B.clamp(min=1)
    repeated = prediction_CBH.gather(0, index_CB[..., None].expand_as(prediction_CBH))
    return repeated.masked_fill(counts_B[:, None] == 0, 0)
