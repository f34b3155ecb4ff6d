"""Core attention on `torch.nn.functional.scaled_dot_product_attention`.

megatron-core's own `DotProductAttention` builds the S x S scores and needs an S x S mask; this one leaves
the choice of kernel (cuDNN, flash, CPU) to torch and builds neither.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.tensor_parallel import get_cuda_rng_tracker
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor


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
        packed_seq_params: Any = None,
    ) -> Tensor:
        """Attend causally.

        Args:
            query, key, value: [S, B, heads of this rank, head dimension].

        Returns:
            [S, B, heads of this rank x head dimension].
        """
        assert attention_mask is None and attention_bias is None and packed_seq_params is None
        dropout = self.dropout if self.training else 0.0
        # Heads are split over tensor-parallel ranks, so each rank must drop its own. Under sequence parallelism the
        # whole block draws from the rank's own generator; a recomputation would not find it again in a second fork.
        forks = dropout > 0 and not self.config.sequence_parallel
        own_generator = get_cuda_rng_tracker().fork() if forks else contextlib.nullcontext()
        with own_generator:
            output_BNSD = torch.nn.functional.scaled_dot_product_attention(
                *(x_SBND.permute(1, 2, 0, 3) for x_SBND in (query, key, value)),
                dropout_p=dropout,
                is_causal=True,
                scale=self.softmax_scale,
            )
        return output_BNSD.permute(2, 0, 1, 3).flatten(start_dim=2)
