"""megatron-core's own `GPTModel` with the sizes of one of our configurations, to compare ours with."""

from __future__ import annotations

from typing import Any

import torch

from contextlm.config.schema import Config
from tests.small_configs import VOCAB_SIZE


def stock_gpt(config: Config, groups: Any, layer_spec: Any) -> torch.nn.Module:
    """The model in evaluation mode; needs the layout fixture.

    Args:
        config: sizes; its context section is ignored.
        groups: process groups.
        layer_spec: megatron-core's description of every layer.
    """
    from megatron.core.models.gpt.gpt_model import GPTModel

    from contextlm.model.transformer_config import build_transformer_config

    model = config.model
    return GPTModel(
        config=build_transformer_config(config),
        transformer_layer_spec=layer_spec,
        vocab_size=model.padded_vocab_size(VOCAB_SIZE, 1),
        max_sequence_length=model.num_positions,
        share_embeddings_and_output_weights=not model.untie_embeddings_and_output_weights,
        position_embedding_type=model.position_embedding_type,
        rotary_percent=model.rotary_percent,
        rotary_base=model.rotary_base,
        pg_collection=groups,
    ).eval()


def causal_mask(length: int) -> torch.Tensor:
    """What stock attention needs: [1, 1, S, S], true where a token must not look."""
    return torch.ones(1, 1, length, length, dtype=torch.bool).triu(diagonal=1)
