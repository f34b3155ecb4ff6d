"""How many parameters a configuration has, part by part, before anything is built.

The plain models count exactly as Hugging Face's GPT2LMHeadModel and GPTNeoXForCausalLM do; the head as
docs/method.md says. Padding of the vocabulary is not counted: it is never trained. Read next: `flops.py`,
`memory.py`.
"""

from __future__ import annotations

from typing import NamedTuple

from contextlm.config.schema import Config, ContextConfig, ModelConfig


class ParameterCounts(NamedTuple):
    """Parameters by part, in the order of the forward pass (the head acts between two layers)."""

    embedding: int
    positions: int
    layers: int
    context_head: int
    final_norm: int
    output_layer: int

    @property
    def total(self) -> int:
        """Parameters of the whole model."""
        return sum(self)


def count_parameters(config: Config, vocab_size: int) -> ParameterCounts:
    """Parameters by part for a vocabulary of `vocab_size` (unpadded)."""
    model = config.model
    table = vocab_size * model.hidden_size
    learned = model.position_embedding_type == "learned_absolute"
    return ParameterCounts(
        embedding=table,
        positions=model.num_positions * model.hidden_size if learned else 0,
        layers=model.num_layers * layer_parameters(model),
        context_head=context_head_parameters(model, config.context),
        final_norm=norm_parameters(model),
        output_layer=table if model.untie_embeddings_and_output_weights else 0,
    )


def layer_parameters(model: ModelConfig, tensor_parallel: int = 1) -> int:
    """One layer's parameters on one of `tensor_parallel` ranks.

    Attention 4 H^2 + 4 H, MLP 2 H F + F + H, two LayerNorms 4 H; with F = 4 H that is 12 H^2 + 13 H.
    Matrices and the biases of column-parallel products are divided; norms and the biases after a reduction
    are on every rank.
    """
    hidden, ffn = model.hidden_size, model.ffn_size
    divided = 4 * hidden * hidden + 3 * hidden + 2 * hidden * ffn + ffn
    return divided // tensor_parallel + 2 * hidden + 2 * norm_parameters(model)


def context_head_parameters(model: ModelConfig, context: ContextConfig, tensor_parallel: int = 1) -> int:
    """The head's parameters on one of `tensor_parallel` ranks: predictor layers, norms, gate; 0 if off."""
    if not context.enabled:
        return 0
    hidden, norm = model.hidden_size, norm_parameters(model)
    # Beyond the layers: the predictor's final norm and the gate, or norm_add's norms of p and of h.
    fusion = {"gated": norm + 1, "gated_channel": norm + hidden, "add": 0, "norm_add": 2 * norm}
    layers = context.context_predictor_layers * layer_parameters(model, tensor_parallel)
    return layers + fusion[context.context_fusion]


def norm_parameters(model: ModelConfig) -> int:
    """Gain and bias of one LayerNorm."""
    return 2 * model.hidden_size
