"""What a model is given for a micro-batch of tokens, and which of its answers count.

The ends of documents change nothing, unless one of Megatron-LM's three options says so, with its meaning:
`get_ltor_masks_and_position_ids` of megatron-core is what the tests compare with.

Shapes: B samples, S tokens of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from contextlm.config.schema import DataConfig
from contextlm.data.tokenizer_interface import Tokenizer
from contextlm.model.documents import Documents, bounds_of


class Inputs(NamedTuple):
    """What the model reads; `documents` is None where it need not know them."""

    tokens_BS: Tensor
    positions_BS: Tensor
    documents: Documents | None


class TokenBatch(NamedTuple):
    """A micro-batch.

    Attributes:
        inputs: what the model reads.
        labels_BS: the token that it is to predict at each.
        scored_BS: whether that prediction counts; None where all do.
    """

    inputs: Inputs
    labels_BS: Tensor
    scored_BS: Tensor | None


@dataclass(frozen=True)
class DocumentEnds:
    """What the end of a document changes.

    Attributes:
        eod: the id that ends a document; it belongs to the document that it ends.
        reset_position_ids: the next one begins at position 0.
        reset_attention_mask: the next one does not see it.
        eod_mask_loss: what is predicted from EOD, the first token of the next one, does not count. EOD itself is
            predicted from the token before it, which counts.
    """

    eod: int | None
    reset_position_ids: bool
    reset_attention_mask: bool
    eod_mask_loss: bool

    @classmethod
    def of(cls, data: DataConfig, tokenizer: Tokenizer) -> DocumentEnds:
        """As the options of a run say."""
        return cls(tokenizer.eod, data.reset_position_ids, data.reset_attention_mask, data.eod_mask_loss)

    @property
    def matter_to_layers(self) -> bool:
        """Whether every layer has to know where documents begin; with the context head chunks begin there, too."""
        return self.reset_position_ids or self.reset_attention_mask

    def inputs(self, host_tokens_BS: Tensor, tokens_BS: Tensor) -> Inputs:
        """The inputs for tokens that are on the host and, the same, on the device of the model."""
        positions_BS = torch.arange(tokens_BS.shape[1], device=tokens_BS.device).expand_as(tokens_BS)
        if not self.matter_to_layers:
            return Inputs(tokens_BS, positions_BS, None)
        assert self.eod is not None
        bounds = None
        if tokens_BS.is_cuda and self.reset_attention_mask:
            # Pinned, or the copy could wait for what the GPU has to do before it.
            bounds = bounds_of(host_tokens_BS, self.eod).pin_memory().to(tokens_BS.device, non_blocking=True)
        documents = Documents.of(tokens_BS, self.eod, self.reset_attention_mask, bounds)
        return Inputs(tokens_BS, documents.positions_BS if self.reset_position_ids else positions_BS, documents)

    def batch(self, samples: Tensor, device: torch.device) -> TokenBatch:
        """The micro-batch of samples on the host, [B, S + 1]."""
        tokens = samples.to(device, non_blocking=True)
        inputs_BS, labels_BS = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
        scored_BS = inputs_BS.ne(self.eod) if self.eod_mask_loss and self.eod is not None else None
        return TokenBatch(self.inputs(samples[:, :-1], inputs_BS), labels_BS, scored_BS)
