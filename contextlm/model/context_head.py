"""The context head: pool W tokens, predict the next context, fuse the prediction into the tokens.

It maps token states to token states of the same shape, so it can stand before any layer (`layers.py`). The
predictor is a megatron-core `TransformerBlock` over chunks: tensor parallel like the backbone, always inside
one pipeline stage. Under sequence parallelism a rank holds a part of the tokens, and every rank all the chunks
(`sequence_exchange.py`).

Shapes: T tokens of this rank, S of the sequence (T, unless it is split), B batch, H hidden, W tokens a chunk,
C = S // W complete chunks.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterable, Iterator

import torch
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.spec_utils import ModuleSpec, build_module
from megatron.core.transformer.transformer_block import TransformerBlock, TransformerBlockSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from contextlm.config.schema import ContextConfig
from contextlm.model.chunking import pool, spread
from contextlm.model.context_control import control
from contextlm.model.document_chunks import DocumentChunks
from contextlm.model.documents import Documents
from contextlm.model.sequence_exchange import SequenceExchange


class ContextHead(MegatronModule):
    """h -> fuse(h, spread(predictor(pool(h)))).

    Args:
        config: the backbone's layer configuration.
        context: the switches of the method.
        layer_spec: the backbone's layer, of which the predictor has `context_predictor_layers`.
        norm: the LayerNorm class of the backend.
        pg_collection: process groups of the model.
    """

    def __init__(
        self,
        config: TransformerConfig,
        context: ContextConfig,
        layer_spec: ModuleSpec,
        norm: type,
        pg_collection: ProcessGroupCollection,
    ) -> None:
        super().__init__(config=config)
        self.context = context
        self.exchange = SequenceExchange(pg_collection, config)
        norm_arguments = {"config": config, "hidden_size": config.hidden_size, "eps": config.layernorm_epsilon}
        self.predictor = _predictor(config, context, layer_spec, norm, pg_collection)
        if context.context_fusion in ("gated", "gated_channel"):
            # 0 at the start: step 0 of a ContextLM is its backbone's.
            size = 1 if context.context_fusion == "gated" else config.hidden_size
            device = None if config.use_cpu_initialization else torch.cuda.current_device()
            self.gate = torch.nn.Parameter(torch.zeros(size, dtype=config.params_dtype, device=device))
            # It acts on this rank's tokens: the mark has megatron-core sum its gradient over the ranks.
            self.gate.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]
        if context.context_fusion == "norm_add":
            self.token_norm = build_module(norm, **norm_arguments)

    def forward(
        self, hidden_TBH: Tensor, rotary_pos_emb: Tensor | None = None, documents: Documents | None = None
    ) -> Tensor:
        """Token states in, guided token states out, both [T, B, H].

        Args:
            hidden_TBH: output of the token encoder.
            rotary_pos_emb: rotation angles of the S token positions, [S, 1 or B, 1, D], or None.
            documents: where chunks begin anew; None for one grid over the sequence.
        """
        width, pooling, shift = (
            self.context.context_chunk_size,
            self.context.context_pooling,
            self.context.context_shift,
        )
        num_tokens = hidden_TBH.shape[0]
        first_token, sequence_length = self.exchange.place(num_tokens)
        if sequence_length < width:  # no complete chunk: the plain model with zero guidance
            return self._fuse(hidden_TBH, torch.zeros_like(hidden_TBH))
        if documents is None:
            share_CBH = pool(hidden_TBH, width, pooling, first_token, sequence_length)
            # Chunk k stands at the position of its first token.
            angles = None if rotary_pos_emb is None else rotary_pos_emb[: share_CBH.shape[0] * width : width]
            prediction_CBH = self._predict(share_CBH, angles)
            return self._fuse(hidden_TBH, spread(prediction_CBH, num_tokens, width, shift, first_token))
        chunks = DocumentChunks(documents, width)
        share_CBH = chunks.pool(hidden_TBH, pooling, first_token)
        angles = None if rotary_pos_emb is None else chunks.angles(rotary_pos_emb)
        prediction_CBH = self._predict(share_CBH, angles, chunks)
        return self._fuse(hidden_TBH, chunks.spread(prediction_CBH, num_tokens, shift, first_token))

    def _predict(self, share_CBH: Tensor, angles: Tensor | None, chunks: DocumentChunks | None = None) -> Tensor:
        """From this rank's share of the contexts to the predictions for its tokens, [C, B, H]."""
        context_CBH = self.exchange.sum_shares(share_CBH)
        if self.context.context_stop_gradient:
            context_CBH = context_CBH.detach()
        prediction_CBH = context_CBH
        if self.predictor is not None:
            with self.exchange.same_random_numbers():
                prediction_CBH = self.predictor(
                    context_CBH,
                    attention_mask=None,
                    rotary_pos_emb=angles,
                    packed_seq_params=None if chunks is None else chunks.documents(),
                )
        if not self.training and self.context.context_control != "none":
            is_chunk_CB = None if chunks is None else chunks.is_chunk_CB
            prediction_CBH = control(self.context.context_control, prediction_CBH, context_CBH, is_chunk_CB)
        return self.exchange.to_every_part(prediction_CBH)

    def gate_value(self) -> Tensor | None:
        """How open the gate is, a scalar; of a gate per channel the mean absolute value; None without a gate."""
        gate = getattr(self, "gate", None)
        if gate is None:
            return None
        values = gate.detach().float()
        return values[0] if self.context.context_fusion == "gated" else values.abs().mean()

    def _fuse(self, hidden_TBH: Tensor, guidance_TBH: Tensor) -> Tensor:
        """Add the guidance to the token states in the way that `--context-fusion` names."""
        if self.context.context_fusion == "norm_add":
            return self.token_norm(hidden_TBH) + guidance_TBH
        if self.context.context_fusion == "add":
            return hidden_TBH + guidance_TBH
        return hidden_TBH + self.gate * guidance_TBH


def heads(parts: Iterable[torch.nn.Module]) -> list[ContextHead]:
    """The context heads in parts of a model: one, or none where another stage has it."""
    return [module for part in parts for module in part.modules() if isinstance(module, ContextHead)]


@contextlib.contextmanager
def controlled(parts: Iterable[torch.nn.Module], kind: str) -> Iterator[None]:
    """Inside, an evaluation replaces the prediction as `--context-control kind` would."""
    found = heads(parts)
    before = [head.context for head in found]
    for head in found:
        head.context = dataclasses.replace(head.context, context_control=kind)
    try:
        yield
    finally:
        for head, context in zip(found, before, strict=True):
            head.context = context


def _predictor(
    config: TransformerConfig,
    context: ContextConfig,
    layer_spec: ModuleSpec,
    norm: type,
    pg_collection: ProcessGroupCollection,
) -> TransformerBlock | None:
    """The causal transformer over chunks; None where it would be the identity.

    Its final norm is left out for the fusion `add`, which wants p on the scale of the residual stream.
    """
    num_layers, has_norm = context.context_predictor_layers, context.context_fusion != "add"
    if num_layers == 0 and not has_norm:
        return None
    predictor_config = copy.copy(config)
    predictor_config.num_layers = num_layers
    # It lies inside one stage, with all chunks on every rank, and inside one layer, which may be recomputed as a whole.
    predictor_config.pipeline_model_parallel_size = 1
    predictor_config.virtual_pipeline_model_parallel_size = None
    predictor_config.sequence_parallel = False
    if config.recompute_granularity == "full":
        predictor_config.recompute_granularity = None
    return TransformerBlock(
        config=predictor_config,
        spec=TransformerBlockSubmodules(layer_specs=[layer_spec] * num_layers, layer_norm=norm if has_norm else None),
        post_layer_norm=has_norm,
        pg_collection=pg_collection,
    )
