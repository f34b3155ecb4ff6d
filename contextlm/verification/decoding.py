"""Decoding with a cache gives the logits of the full forward pass, for prompts that end at every place of a chunk.

Shapes: B rows of S tokens, V ids of the vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from contextlm.inference.cached_steps import cached_step
from contextlm.inference.subject import Subject
from contextlm.verification.proof import ROUNDING, Proof
from contextlm.verification.random_texts import random_ids

MAX_PHASES = 8  # a wide chunk has many places: its first ones and its last ones are the odd ones


def cached_decoding(examined: Subject) -> list[Proof]:
    """Token by token from the first one on; and prompts of every phase, then three tokens at once, then one by one.

    Args:
        examined: a model of transformers.
    """
    width = max(1, examined.chunk_size)
    length = min(3 * width + 4, examined.num_positions)
    ids_BS = random_ids(examined, 2, length, seed=1)
    full_BSV = examined.logits(ids_BS).float()
    largest = full_BSV.abs().max().item()
    phases = list(range(width)) if width <= MAX_PHASES else [*range(4), *range(width - 4, width)]
    plans = [[1] * length]
    plans += [[prompt, 3, *[1] * (length - prompt - 3)] for prompt in (width + 1 + phase for phase in phases)]
    worst = 0.0
    for plan in plans:
        cached_BSV = _decode(examined, ids_BS, plan)
        worst = max(worst, (cached_BSV - full_BSV[:, : cached_BSV.shape[1]]).abs().max().item() / largest)
    remark = f"{len(plans)} ways to read {length} tokens; prompts at {len(phases)} places of a chunk of {width}"
    return [Proof("cached decoding is the full forward pass", worst, ROUNDING, remark)]


def _decode(examined: Subject, ids_BS: Tensor, plan: list[int]) -> Tensor:
    """Logits of a text that is read in pieces of these sizes; what it does not reach is left out."""
    cache, position, found = None, 0, []
    for count in plan:
        piece_BT = ids_BS[:, position : position + count].to(examined.device)
        if piece_BT.shape[1] == 0:
            break
        logits_BTV, cache = cached_step(examined.model, piece_BT, cache)
        found.append(logits_BTV.float())
        position += count
    return torch.cat(found, dim=1)
