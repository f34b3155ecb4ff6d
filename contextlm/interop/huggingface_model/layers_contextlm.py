"""The layers that backbone and predictor of a ContextLM are made of: GPT-2's or GPT-NeoX's.

This file also travels in exported folders: it imports nothing but torch, transformers and the files beside it.

Shapes: B rows, T positions, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_contextlm import ContextLMConfig

Rotation = tuple[Tensor, Tensor]
Store = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def rotation(config: ContextLMConfig, positions_BT: Tensor, dtype: torch.dtype) -> Rotation | None:
    """Cosines and sines of each position's angles, [B, 1, T, rotated]; None where positions are learned."""
    if config.position_embedding_type != "rope":
        return None
    rotated = int(config.hidden_size // config.num_attention_heads * config.rotary_percent)
    exponents = torch.arange(0, rotated, 2, dtype=torch.float32, device=positions_BT.device) / rotated
    angles = positions_BT[:, None, :, None].float() * (1.0 / config.rotary_base**exponents)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, by: Rotation) -> Tensor:
    """Rotate the first entries of each head: the first half of them against the second."""
    cos, sin = by
    turned, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    first, second = turned.chunk(2, dim=-1)
    return torch.cat((turned * cos + torch.cat((-second, first), dim=-1) * sin, rest), dim=-1)


class ContextLMAttention(nn.Module):
    """Self-attention; queries, keys and values of a head are rows of one matrix, head by head."""

    def __init__(self, config: ContextLMConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.dropout = config.attention_dropout
        self.qkv_proj = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor, mask: Tensor | None, by: Rotation | None, store: Store | None) -> Tensor:
        """States [B, T, H] in and out; without a mask one query sees every key, and several attend causally."""
        heads = self.qkv_proj(hidden).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        query, key, value = heads.chunk(3, dim=-1)
        if by is not None:
            query, key = rotate(query, by), rotate(key, by)
        if store is not None:
            key, value = store(key, value)
        mixed = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=mask is None and query.shape[2] > 1,
        )
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class ContextLMMLP(nn.Module):
    """Two matrices around a GELU."""

    def __init__(self, config: ContextLMConfig) -> None:
        super().__init__()
        self.approximate = "tanh" if config.gelu == "tanh" else "none"
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """States [B, T, H] in and out."""
        return self.down_proj(functional.gelu(self.up_proj(hidden), approximate=self.approximate))


class ContextLMLayer(GradientCheckpointingLayer):
    """A layer of the backbone or of the predictor: GPT-2's sequential residual or GPT-NeoX's parallel one."""

    def __init__(self, config: ContextLMConfig) -> None:
        super().__init__()
        self.parallel, self.dropout = config.parallel_residual, config.hidden_dropout
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = ContextLMAttention(config)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = ContextLMMLP(config)

    def forward(
        self, hidden: Tensor, mask: Tensor | None = None, by: Rotation | None = None, store: Store | None = None
    ) -> Tensor:
        """States [B, T, H] in and out."""
        mixed = self._drop(self.self_attn(self.input_layernorm(hidden), mask, by, store))
        read = hidden if self.parallel else hidden + mixed
        return hidden + mixed + self._drop(self.mlp(self.post_attention_layernorm(read)))

    def _drop(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.dropout, self.training) if self.dropout else x
