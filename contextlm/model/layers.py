"""The decoder layers: sequential or parallel residual, each with or without the context head before it."""

from __future__ import annotations

from typing import Any

from megatron.core import tensor_parallel
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import TransformerLayer, TransformerLayerSubmodules
from torch import Tensor

from contextlm.config.schema import ContextConfig
from contextlm.model.context_head import ContextHead


class ParallelResidualLayer(TransformerLayer):
    """GPT-NeoX's layer: x + attention(norm1(x)) + mlp(norm2(x)) (Black et al., 2022).

    megatron-core has the sequential one only.
    """

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> tuple[Tensor, None]:
        """Token states in and out, [S, B, H]; the second value is megatron-core's cross-attention context."""
        attention = self.self_attention(
            self.input_layernorm(hidden_states),
            attention_mask=kwargs.get("attention_mask"),
            rotary_pos_emb=kwargs.get("rotary_pos_emb"),
            packed_seq_params=kwargs.get("packed_seq_params"),
        )
        normed = self.pre_mlp_layernorm(hidden_states)
        mlp = tensor_parallel.checkpoint(self.mlp, False, normed) if self.recompute_mlp else self.mlp(normed)
        fusion = self.config.bias_dropout_fusion
        output = self.self_attn_bda(self.training, fusion)(attention, hidden_states, self.hidden_dropout)
        return self.mlp_bda(self.training, fusion)(mlp, output, self.hidden_dropout), None


class _WithContextHead:
    """Applies a context head to the input of the layer class that it is mixed into."""

    def __init__(
        self,
        config: TransformerConfig,
        submodules: TransformerLayerSubmodules,
        context: ContextConfig,
        predictor_layer: ModuleSpec,
        norm: type,
        pg_collection: ProcessGroupCollection,
        **kwargs: Any,
    ) -> None:
        # What `super` is depends on the layer class that this is mixed into.
        super().__init__(config=config, submodules=submodules, pg_collection=pg_collection, **kwargs)  # type: ignore[call-arg]
        self.context_head = ContextHead(config, context, predictor_layer, norm, pg_collection)

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """Token states in and out, [S, B, H]."""
        guided = self.context_head(hidden_states, kwargs.get("rotary_pos_emb"), kwargs.get("packed_seq_params"))
        return super().forward(hidden_states=guided, **kwargs)  # type: ignore[misc]


class TransformerLayerWithContext(_WithContextHead, TransformerLayer):
    """GPT-2's layer behind a context head."""


class ParallelResidualLayerWithContext(_WithContextHead, ParallelResidualLayer):  # type: ignore[misc]
    """GPT-NeoX's layer behind a context head."""
