"""Configuration of a ContextLM for transformers. The names are those of the trainer's options where they are its own.

This file also travels in exported folders: it imports nothing but transformers.
"""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig


class ContextLMConfig(PretrainedConfig):
    """A GPT-2 or GPT-NeoX backbone with a context head before layer `context_encoder_layers`.

    Args:
        vocab_size: token ids are below this.
        hidden_size: width of the residual stream.
        num_hidden_layers: layers of the backbone.
        num_attention_heads: of the backbone and of the predictor.
        intermediate_size: width of the MLPs; 4 x hidden_size if not given.
        max_position_embeddings: rows of the learned position table, or the length that was trained on.
        position_embedding_type: "learned_absolute" adds a table, "rope" rotates.
        rotary_percent: share of each head that is rotated.
        rotary_base: base period of the rotation.
        layer_norm_eps: of every LayerNorm.
        gelu: "tanh" or "erf".
        parallel_residual: x + attention(norm1(x)) + mlp(norm2(x)) in place of the sequential one.
        hidden_dropout: after embedding, attention and MLP, in training.
        attention_dropout: on attention probabilities, in training.
        context_chunk_size: tokens pooled into one context embedding; 0 = no context head.
        context_predictor_layers: causal layers over chunks.
        context_encoder_layers: layers before the head; half of them if not given.
        context_pooling: "mean", "last" or "first".
        context_fusion: "gated", "gated_channel", "add" or "norm_add".
        context_shift: a chunk's last token already receives the next chunk's prediction.
        context_stop_gradient: no gradient from the predictor into the token encoder.
        initializer_range: standard deviation of new weights.
        use_cache: decode with a `ContextCache`.
        tie_word_embeddings: the output layer is the embedding.
        bos_token_id, eos_token_id, pad_token_id: for `generate`.
    """

    model_type = "contextlm"
    keys_to_ignore_at_inference = ["cache", "past_key_values"]

    def __init__(
        self,
        vocab_size: int = 50257,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int | None = None,
        max_position_embeddings: int = 1024,
        position_embedding_type: str = "learned_absolute",
        rotary_percent: float = 1.0,
        rotary_base: int = 10000,
        layer_norm_eps: float = 1e-5,
        gelu: str = "tanh",
        parallel_residual: bool = False,
        hidden_dropout: float = 0.0,
        attention_dropout: float = 0.0,
        context_chunk_size: int = 4,
        context_predictor_layers: int = 2,
        context_encoder_layers: int | None = None,
        context_pooling: str = "mean",
        context_fusion: str = "gated",
        context_shift: bool = True,
        context_stop_gradient: bool = False,
        initializer_range: float = 0.02,
        use_cache: bool = True,
        tie_word_embeddings: bool = True,
        bos_token_id: int | None = None,
        eos_token_id: int | None = None,
        pad_token_id: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = 4 * hidden_size if intermediate_size is None else intermediate_size
        self.max_position_embeddings = max_position_embeddings
        self.position_embedding_type = position_embedding_type
        self.rotary_percent = rotary_percent
        self.rotary_base = rotary_base
        self.layer_norm_eps = layer_norm_eps
        self.gelu = gelu
        self.parallel_residual = parallel_residual
        self.hidden_dropout = hidden_dropout
        self.attention_dropout = attention_dropout
        self.context_chunk_size = context_chunk_size
        self.context_predictor_layers = context_predictor_layers
        self.context_encoder_layers = (
            num_hidden_layers // 2 if context_encoder_layers is None else context_encoder_layers
        )
        self.context_pooling = context_pooling
        self.context_fusion = context_fusion
        self.context_shift = context_shift
        self.context_stop_gradient = context_stop_gradient
        self.initializer_range = initializer_range
        self.use_cache = use_cache
        self.tie_word_embeddings = tie_word_embeddings
        self.bos_token_id = bos_token_id
        self.eos_token_id = eos_token_id
        self.pad_token_id = pad_token_id
