"""From the configuration to the modules of one pipeline stage."""

from __future__ import annotations

from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.models.backends import BackendSpecProvider
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.transformer.attention import SelfAttention, SelfAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import (
    TransformerLayer,
    TransformerLayerSubmodules,
    get_transformer_layer_offset,
)

from contextlm.config.schema import Config
from contextlm.model.attention import ScaledDotProductAttention
from contextlm.model.backends import choose_backend
from contextlm.model.language_model import ContextLM
from contextlm.model.layers import (
    ParallelResidualLayer,
    ParallelResidualLayerWithContext,
    TransformerLayerWithContext,
)
from contextlm.model.transformer_config import build_transformer_config


def build_model(config: Config, vocab_size: int, pg_collection: ProcessGroupCollection) -> list[ContextLM]:
    """The language model of this rank's pipeline stage: one part, or several in an interleaved pipeline.

    Args:
        config: the resolved configuration.
        vocab_size: ids of the tokenizer, unpadded.
        pg_collection: process groups of the model.
    """
    transformer_config = build_transformer_config(config)
    return [
        _build_chunk(config, transformer_config, vocab_size, pg_collection, chunk)
        for chunk in range(config.num_model_chunks)
    ]


def _build_chunk(
    config: Config,
    transformer_config: TransformerConfig,
    vocab_size: int,
    pg_collection: ProcessGroupCollection,
    chunk: int,
) -> ContextLM:
    """One part of this rank's stage; megatron-core wants one layer configuration for all of them."""
    model, pipeline, interleaved = config.model, pg_collection.pp, config.num_model_chunks > 1
    vp_stage = chunk if interleaved else None
    return ContextLM(
        config=transformer_config,
        transformer_layer_spec=_block_spec(config, transformer_config, pipeline.rank(), vp_stage),
        true_vocab_size=vocab_size,
        vocab_size=model.padded_vocab_size(vocab_size, config.parallel.tensor_model_parallel_size),
        # Rotary angles have no table of their own length.
        max_sequence_length=max(model.num_positions, model.seq_length),
        pre_process=pipeline.rank() == 0 and chunk == 0,
        post_process=pipeline.rank() == pipeline.size() - 1 and chunk == config.num_model_chunks - 1,
        share_embeddings_and_output_weights=not model.untie_embeddings_and_output_weights,
        position_embedding_type=model.position_embedding_type,
        rotary_percent=model.rotary_percent,
        rotary_base=model.rotary_base,
        pg_collection=pg_collection,
        vp_stage=vp_stage,
    )


def _block_spec(
    config: Config, transformer_config: TransformerConfig, pipeline_rank: int, vp_stage: int | None
) -> TransformerBlockSubmodules:
    """The layers of this part; the one that begins the token decoder carries the context head."""
    backend = choose_backend(config.model.transformer_impl, config.half_precision, config.fp8)
    within_documents = config.data.reset_position_ids or config.data.reset_attention_mask
    plain = layer_spec(backend, config.model.parallel_residual, within_documents)
    first = get_transformer_layer_offset(transformer_config, vp_stage, pipeline_rank)
    layers = [plain] * get_num_layers_to_build(transformer_config, vp_stage, pipeline_rank)
    index = config.encoder_layers - first
    if config.context.enabled and 0 <= index < len(layers):
        layers[index] = ModuleSpec(
            module=(
                ParallelResidualLayerWithContext if config.model.parallel_residual else TransformerLayerWithContext
            ),
            submodules=plain.submodules,
            params={"context": config.context, "predictor_layer": plain, "norm": backend.layer_norm()},
        )
    return TransformerBlockSubmodules(layer_specs=layers, layer_norm=backend.layer_norm())


def layer_spec(backend: BackendSpecProvider, parallel_residual: bool, within_documents: bool = False) -> ModuleSpec:
    """One plain layer; its checkpoint keys are the same for every backend.

    Args:
        backend: gives the classes; Transformer Engine's fuse each norm into the linear layer behind it.
        parallel_residual: GPT-NeoX's layer in place of GPT-2's.
        within_documents: the layers are told where documents begin, which no attention but ours understands.
    """
    fused = backend.fuse_layernorm_and_linear()
    norm = IdentityOp if fused else backend.layer_norm()
    after_norm = backend.column_parallel_layer_norm_linear() if fused else backend.column_parallel_linear()
    return ModuleSpec(
        module=ParallelResidualLayer if parallel_residual else TransformerLayer,
        submodules=TransformerLayerSubmodules(
            input_layernorm=norm,
            self_attention=ModuleSpec(
                module=SelfAttention,
                params={"attn_mask_type": AttnMaskType.causal},
                submodules=SelfAttentionSubmodules(
                    linear_qkv=after_norm,
                    core_attention=ScaledDotProductAttention if within_documents else backend.core_attention(),
                    linear_proj=backend.row_parallel_linear(),
                ),
            ),
            self_attn_bda=get_bias_dropout_add,
            pre_mlp_layernorm=norm,
            mlp=ModuleSpec(
                module=MLP,
                submodules=MLPSubmodules(linear_fc1=after_norm, linear_fc2=backend.row_parallel_linear()),
            ),
            mlp_bda=get_bias_dropout_add,
            sharded_state_dict_keys_map={}
            if fused
            else {
                "input_layernorm.": "self_attention.linear_qkv.layer_norm_",
                "pre_mlp_layernorm.": "mlp.linear_fc1.layer_norm_",
            },
        ),
    )
