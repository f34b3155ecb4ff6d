"""Configurations small enough to prove things with."""

from __future__ import annotations

from typing import Any

from contextlm.config.fields import build
from contextlm.config.presets import preset
from contextlm.config.schema import Config

VOCAB_SIZE = 515  # odd, so that padding exists under every layout
BACKBONES = {"gpt2": "gpt2-tiny", "pythia": "pythia-tiny"}
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
        "compile": "off",  # on CUDA too: what compiles says so
    }
    return build(preset(BACKBONES[backbone])["model"] | small | values, None)
