"""Random token ids without an end of document, which only the trainer's model may have learned to tell apart."""

from __future__ import annotations

import torch
from torch import Tensor

from contextlm.inference.subject import Subject


def random_ids(examined: Subject, *shape: int, seed: int) -> Tensor:
    """Token ids of any shape, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    end = examined.tokenizer.eod
    if end is None:
        return torch.randint(examined.tokenizer.vocab_size, shape, generator=generator)
    ids = torch.randint(examined.tokenizer.vocab_size - 1, shape, generator=generator)
    return ids + (ids >= end)
