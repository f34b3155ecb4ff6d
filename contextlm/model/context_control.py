"""Replacements of the prediction at evaluation: does the context help, and by its content?

Each takes and gives [C, B, H] (C chunks, B batch, H hidden).
"""

from __future__ import annotations

import torch
from torch import Tensor

from contextlm.errors import UserError


def control(kind: str, prediction_CBH: Tensor, context_CBH: Tensor) -> Tensor:
    """What the tokens receive in place of the prediction.

    Args:
        kind: "zero"; "shuffle", another sequence's prediction; "random", noise of the same scale;
            "previous", the pooled chunk just read in place of a prediction of the next.
        prediction_CBH: the prediction.
        context_CBH: the pooled chunks.

    Raises:
        UserError: "shuffle" with a batch of 1, which has no other sequence.
    """
    if kind == "zero":
        return torch.zeros_like(prediction_CBH)
    if kind == "shuffle":
        if prediction_CBH.shape[1] == 1:
            raise UserError("--context-control shuffle: swaps the sequences of a batch; this one has one: use more")
        return prediction_CBH.roll(1, dims=1)  # a derangement: no sequence keeps its own
    if kind == "random":
        return torch.randn_like(prediction_CBH) * prediction_CBH.std()
    assert kind == "previous"
    return context_CBH
