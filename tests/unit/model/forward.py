"""Running a model in a test. B sequences of S tokens, V padded vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.small_configs import VOCAB_SIZE


def token_ids(batch_size: int, sequence_length: int, seed: int = 0) -> Tensor:
    """Random token ids [B, S]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCAB_SIZE, (batch_size, sequence_length), generator=generator)


def run(model: torch.nn.Module, ids_BS: Tensor, labels_BS: Tensor | None = None) -> Tensor:
    """Logits [B, S, V], or with labels the loss of each token [B, S]."""
    positions_BS = torch.arange(ids_BS.shape[1]).expand_as(ids_BS)
    return model(ids_BS, positions_BS, None, labels=labels_BS)


@torch.no_grad()
def logits(model: torch.nn.Module, ids_BS: Tensor) -> Tensor:
    """Logits [B, S, VOCAB_SIZE] without the padding."""
    return run(model, ids_BS)[..., :VOCAB_SIZE]
