"""Running a model in a test. B sequences of S tokens, V padded vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.small_configs import VOCAB_SIZE


def token_ids(batch_size: int, sequence_length: int, seed: int = 0) -> Tensor:
    """Random token ids [B, S]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCAB_SIZE, (batch_size, sequence_length), generator=generator)


def run(
    model: torch.nn.Module, ids_BS: Tensor, labels_BS: Tensor | None = None, *, eod: int | None = None, **options: bool
) -> Tensor:
    """Logits [B, S, V], or with labels the loss of each token [B, S].

    `options` are those about the ends of documents, which `eod` is.
    """
    from contextlm.model.token_batch import DocumentEnds

    given = {"reset_position_ids": False, "reset_attention_mask": False, "eod_mask_loss": False} | options
    tokens_BS, positions_BS, documents = DocumentEnds(eod, **given).inputs(ids_BS, ids_BS)
    return model(tokens_BS, positions_BS, None, labels=labels_BS, packed_seq_params=documents)


@torch.no_grad()
def logits(model: torch.nn.Module, ids_BS: Tensor, **options: int) -> Tensor:
    """Logits [B, S, VOCAB_SIZE] without the padding."""
    return run(model, ids_BS, **options)[..., :VOCAB_SIZE]
