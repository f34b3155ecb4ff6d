"""The `model` section: the shape of the backbone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from contextlm.config.options import option


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The GPT backbone: GPT-2 or GPT-NeoX (Pythia), built from megatron-core layers."""

    num_layers: int = option(4, "Number of transformer layers of the backbone.", minimum=1)
    hidden_size: int = option(128, "Width of the residual stream.", minimum=1)
    ffn_hidden_size: int | None = option(
        None, "Width of the MLP; 4 x hidden size if not given.", example=3072, minimum=1
    )
    num_attention_heads: int = option(4, "Number of attention heads.", minimum=1)
    seq_length: int = option(256, "Tokens per training sample.", minimum=1)
    max_position_embeddings: int | None = option(
        None, "Rows of the learned position table; follows --seq-length if not given.", example=1024, minimum=1
    )
    position_embedding_type: str = option(
        "learned_absolute",
        "How positions enter: GPT-2 adds a table, GPT-NeoX rotates.",
        choices=("learned_absolute", "rope"),
    )
    rotary_percent: float = option(1.0, "Share of each head that is rotated (rope only).", above=0, maximum=1)
    rotary_base: int = option(10000, "Base period of the rotation (rope only).", minimum=1)
    norm_epsilon: float = option(1e-5, "Epsilon of every LayerNorm.", above=0)
    gelu: str = option("tanh", "GELU variant: tanh (GPT-2) or erf (GPT-NeoX).", choices=("tanh", "erf"))
    parallel_residual: bool = option(
        False, "GPT-NeoX's residual, x + attn(ln1(x)) + mlp(ln2(x)), in place of the sequential one."
    )
    untie_embeddings_and_output_weights: bool = option(
        False, "Give the output layer weights of its own (GPT-NeoX) in place of the embedding's (GPT-2)."
    )
    vocab_size: int | None = option(
        None,
        "Size of the vocabulary for --dry-run without a tokenizer; training takes the tokenizer's. Of a NullTokenizer, "
        "without EOD; of a TikTokenizer, how much of its .json file is used.",
        example=50257,
        minimum=1,
    )
    make_vocab_size_divisible_by: int = option(
        128, "The embedding table is padded to a multiple of this times the tensor-parallel size.", minimum=1
    )
    hidden_dropout: float = option(
        0.0, "Dropout after embedding, attention and MLP.", example=0.1, minimum=0, maximum=0.99
    )
    attention_dropout: float = option(0.0, "Dropout on attention probabilities.", example=0.1, minimum=0, maximum=0.99)
    init_method: str = option(
        "normal",
        "Initial weights: normal (std --init-method-std) or small_init, std sqrt(2 / (5 hidden)).",
        choices=("normal", "small_init"),
    )
    init_method_std: float = option(0.02, "Standard deviation of normal initial weights.", above=0)
    output_layer_init_method: str = option(
        "scaled_normal",
        "Initial residual projections: scaled_normal, std / sqrt(2 layers), or wang_init, 2 / (layers sqrt(hidden)).",
        choices=("scaled_normal", "wang_init"),
    )
    transformer_impl: str = option(
        "auto",
        "Layer backend: auto takes Transformer Engine where it imports and fits, else torch (= local).",
        choices=("auto", "torch", "local", "transformer_engine"),
    )

    @property
    def ffn_size(self) -> int:
        """Width of the MLP."""
        return self.ffn_hidden_size or 4 * self.hidden_size

    @property
    def num_positions(self) -> int:
        """Rows of the learned position table."""
        return self.max_position_embeddings or self.seq_length

    def padded_vocab_size(self, vocab_size: int, tensor_model_parallel_size: int) -> int:
        """`vocab_size` rounded up so that every tensor-parallel rank holds equally many rows."""
        multiple = self.make_vocab_size_divisible_by * tensor_model_parallel_size
        return math.ceil(vocab_size / multiple) * multiple
