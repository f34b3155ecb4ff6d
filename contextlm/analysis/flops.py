"""Floating-point operations per token: matrix products and attention, forward and in training.

A product of [m, k] and [k, n] counts 2 m k n. Attention is counted in full (S x S) unless `causal_half` is
asked for, Megatron-LM's convention, which counts the half below the diagonal. Norms, activations and
pooling are not counted: they are below 1%. The context predictor works on chunks, so a token pays its share
of them.
"""

from __future__ import annotations

from contextlm.config.schema import Config, ModelConfig


def forward_flops_per_token(config: Config, vocab_size: int, *, causal_half: bool = False) -> float:
    """Forward operations per token of a full sample: layers, context predictor and output layer.

    vocab_size: rows of the output layer that are multiplied; unpadded by convention.
    """
    model, context = config.model, config.context
    seq_length = model.seq_length
    flops = model.num_layers * layer_flops(model, seq_length, causal_half)
    if context.enabled:
        chunks = seq_length // context.context_chunk_size
        per_chunk = context.context_predictor_layers * layer_flops(model, chunks, causal_half)
        flops += chunks * per_chunk / seq_length
    return flops + 2 * model.hidden_size * vocab_size


def training_flops_per_token(config: Config, vocab_size: int, *, causal_half: bool = False) -> float:
    """Forward and backward: the backward pass has two products for each one of the forward pass."""
    return 3 * forward_flops_per_token(config, vocab_size, causal_half=causal_half)


def layer_flops(model: ModelConfig, length: int, causal_half: bool = False) -> float:
    """Forward operations of one layer per position of a sequence of `length` positions.

    8 H^2 + 4 H F for the products (24 H^2 with F = 4 H), 4 H length for scores and weighted sum.
    """
    hidden = model.hidden_size
    attention = 4 * hidden * length
    return 8 * hidden * hidden + 4 * hidden * model.ffn_size + (attention / 2 if causal_half else attention)
