"""Configurations small enough to prove things with."""

from __future__ import annotations

from typing import Any

from contextlm.config.fields import build
from contextlm.config.schema import Config

VOCAB_SIZE = 515  # odd, so that padding exists under every layout
BACKBONES: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "pythia": {
        "position_embedding_type": "rope",
        "rotary_percent": 0.25,
        "gelu": "erf",
        "parallel_residual": True,
        "untie_embeddings_and_output_weights": True,
        "init_method": "small_init",
        "output_layer_init_method": "wang_init",
    },
}
FUSIONS = ("gated", "gated_channel", "add", "norm_add")


def small_config(backbone: str = "gpt2", **values: Any) -> Config:
    """A model of 4 layers x 64 with a context head (w = 4); `values` are fields of any section by name."""
    small = {
        "num_layers": 4,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "seq_length": 66,
        "context_chunk_size": 4,
        "train_iters": 5,
    }
    return build(small | BACKBONES[backbone] | values, None)
