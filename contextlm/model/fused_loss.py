"""The loss of each token from hidden states, written for a compiler to fuse.

Eagerly megatron-core's vocabulary-parallel loss makes fp32 logits, their exponentials and their gradients one after the
other. Compiled, this keeps the logits in the precision of the weights and works out the rest in fp32 in registers.

Shapes: S tokens, B batch, H hidden, V padded vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear


def token_losses(hidden_SBH: Tensor, weight_VH: Tensor, labels_BS: Tensor, true_vocab_size: int) -> Tensor:
    """Cross entropy of each token, fp32 [B, S], over the ids below `true_vocab_size`."""
    logits_SBV = linear(hidden_SBH, weight_VH)
    width = logits_SBV.shape[-1]
    if true_vocab_size < width:
        is_id_V = torch.arange(width, device=logits_SBV.device) < true_vocab_size
        logits_SBV = torch.where(is_id_V, logits_SBV, float("-inf"))
    losses = cross_entropy(logits_SBV.flatten(0, 1).float(), labels_BS.t().flatten(), reduction="none")
    return losses.view(hidden_SBH.shape[:2]).t()
