"""Core attention on `torch.nn.functional.scaled_dot_product_attention`.

megatron-core's own `DotProductAttention` builds the S x S scores and needs an S x S mask; this one leaves
the choice of kernel (cuDNN, flash, CPU) to torch and builds neither. Only where it must not leave a document, and
`varlen_attention.py` has no kernel for it, there is a mask.
"""

from __future__ import annotations

import contextlib

import torch
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.tensor_parallel import get_cuda_rng_tracker
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor
from torch.nn.attention import SDPBackend

from contextlm.model import varlen_attention
from contextlm.model.documents import Documents


def kernel_name(heads: int, dimension: int, length: int, device: torch.device, dtype: torch.dtype) -> str:
    """Which kernel torch chooses for causal attention without dropout: flash, efficient, math, cudnn.

    Args:
        heads: of this rank.
        dimension: of a head.
        length: tokens of a sample.
        device, dtype: of the states.
    """
    query_BNSD = torch.empty(1, heads, length, dimension, device=device, dtype=dtype, requires_grad=True)
    choice = SDPBackend(torch._fused_sdp_choice(query_BNSD, query_BNSD, query_BNSD, is_causal=True))
    return choice.name.removesuffix("_ATTENTION").lower()


class ScaledDotProductAttention(MegatronModule):
    """Causal attention of the heads of this tensor-parallel rank; the arguments are megatron-core's."""

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: AttnMaskType,
        attention_type: str,
        attention_dropout: float | None = None,
        softmax_scale: float | None = None,
        cp_comm_type: str | None = None,
        pg_collection: ProcessGroupCollection | None = None,
    ) -> None:
        super().__init__(config=config)
        assert attn_mask_type == AttnMaskType.causal, "only causal attention is offered"
        self.dropout = config.attention_dropout if attention_dropout is None else attention_dropout
        self.softmax_scale = softmax_scale

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        attn_mask_type: AttnMaskType | None = None,
        attention_bias: Tensor | None = None,
        packed_seq_params: Documents | None = None,
    ) -> Tensor:
        """Attend causally.

        Args:
            query, key, value: [S, B, heads of this rank, head dimension].
            packed_seq_params: where documents begin, to attend within each, if they are isolated.

        Returns:
            [S, B, heads of this rank x head dimension].
        """
        assert attention_mask is None and attention_bias is None
        dropout = self.dropout if self.training else 0.0
        documents = packed_seq_params if packed_seq_params is not None and packed_seq_params.isolated else None
        if documents is not None and varlen_attention.is_offered(query, documents, dropout):
            return varlen_attention.attend(query, key, value, documents, self.softmax_scale)
        # Heads are split over tensor-parallel ranks, so each rank must drop its own. Under sequence parallelism the
        # whole block draws from the rank's own generator; a recomputation would not find it again in a second fork.
        forks = dropout > 0 and not self.config.sequence_parallel
        own_generator = get_cuda_rng_tracker().fork() if forks else contextlib.nullcontext()
        query_BNSD, key_BNSD, value_BNSD = (x_SBND.permute(1, 2, 0, 3) for x_SBND in (query, key, value))
        with own_generator:
            output_BNSD = torch.nn.functional.scaled_dot_product_attention(
                query_BNSD,
                key_BNSD,
                value_BNSD,
                attn_mask=None if documents is None else documents.mask_B1SS,
                dropout_p=dropout,
                is_causal=documents is None,
                scale=self.softmax_scale,
            )
        return output_BNSD.permute(2, 0, 1, 3).flatten(start_dim=2)
