"""Self-attention without rotation, whose backward pass sums the bias's gradient while it joins those of q, k and v.

The gradient of a bias is a sum over the tokens. Compilers write the joined gradients and read them again for it; on
CUDA, where one rank holds the matrix, one kernel does both (`megatron/heads_kernel.py`). Where positions rotate q and
k, compilers rotate their gradients back while they join them, which is worth more.

Shapes: S tokens, B batch, N heads, D head dimension.
"""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.transformer.attention import SelfAttention
from torch import Tensor
from torch.nn.functional import linear

from contextlm.model.linear import leaves_bias_gradient


class UnrotatedSelfAttention(SelfAttention):
    """megatron-core's, and its numbers."""

    def get_query_key_value_tensors(
        self,
        hidden_states: Tensor,
        key_value_states: Tensor | None = None,
        output_gate: bool = False,
        split_qkv: bool = True,
    ) -> Any:
        """[S, B, inputs] to queries, keys and values, [S, B, N, D] each."""
        product, config = self.linear_qkv, self.config
        is_plain = split_qkv and not output_gate and self.q_layernorm is None and self.k_layernorm is None
        if (
            is_plain
            and config.num_query_groups == config.num_attention_heads
            and leaves_bias_gradient(product, hidden_states.is_cuda)
        ):
            return linear_heads(hidden_states, product.weight, product.bias, self.hidden_size_per_attention_head)
        return super().get_query_key_value_tensors(hidden_states, key_value_states, output_gate, split_qkv)


def linear_heads(input_: Tensor, weight: Tensor, bias: Tensor, dimension: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, [S, B, N, D] each, of `linear(input_, weight, bias)`; its backward pass is for CUDA."""
    return _Heads.apply(linear(input_, weight, bias.detach()), bias, dimension)


class _Heads(torch.autograd.Function):
    """The three parts of a sum whose last summand was `bias`."""

    @staticmethod
    def forward(ctx: Any, joined_SBX: Tensor, bias: Tensor, dimension: int) -> tuple[Tensor, Tensor, Tensor]:
        heads_SBN3D = joined_SBX.unflatten(-1, (-1, 3, dimension))
        query_SBND, key_SBND, value_SBND = heads_SBN3D.unbind(-2)
        return query_SBND, key_SBND, value_SBND

    @staticmethod
    def backward(ctx: Any, *gradients_SBND: Tensor) -> tuple[Tensor, Tensor, None]:
        from contextlm.megatron.heads_kernel import join_heads  # Triton comes with torch for CUDA

        return *join_heads(*gradients_SBND), None
