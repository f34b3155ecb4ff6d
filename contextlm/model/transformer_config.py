"""From our configuration to megatron-core's `TransformerConfig`."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from contextlm.config.schema import Config, ModelConfig


def build_transformer_config(config: Config) -> TransformerConfig:
    """The layer configuration of the backbone; the predictor takes a copy of it."""
    model, parallel, training = config.model, config.parallel, config.training
    dtype = torch.bfloat16 if training.bf16 else torch.float16 if training.fp16 else torch.float32
    interleaved = config.num_model_chunks > 1
    return TransformerConfig(
        num_layers=model.num_layers,
        hidden_size=model.hidden_size,
        ffn_hidden_size=model.ffn_size,
        num_attention_heads=model.num_attention_heads,
        layernorm_epsilon=model.norm_epsilon,
        activation_func=functools.partial(
            torch.nn.functional.gelu, approximate="tanh" if model.gelu == "tanh" else "none"
        ),
        hidden_dropout=model.hidden_dropout,
        attention_dropout=model.attention_dropout,
        init_method=_init_method(model),
        output_layer_init_method=_output_init_method(model),
        tensor_model_parallel_size=parallel.tensor_model_parallel_size,
        sequence_parallel=parallel.splits_sequence,
        pipeline_model_parallel_size=parallel.pipeline_model_parallel_size,
        virtual_pipeline_model_parallel_size=config.num_model_chunks if interleaved else None,
        num_layers_in_first_pipeline_stage=parallel.decoder_first_pipeline_num_layers,
        num_layers_in_last_pipeline_stage=parallel.decoder_last_pipeline_num_layers,
        # Between two stages that exchange two chunks, batched sends cross and gradients are silently wrong.
        overlap_p2p_comm=interleaved,
        batch_p2p_comm=not interleaved,
        # It has the host wait for the device at each exchange, against a fault of a PyTorch older than ours.
        batch_p2p_sync=False,
        pipeline_dtype=dtype,
        params_dtype=dtype,
        bf16=training.bf16,
        fp16=training.fp16,
        recompute_granularity=training.recompute_granularity,
        recompute_method=training.recompute_method,
        recompute_num_layers=training.recompute_num_layers,
        recompute_modules=list(training.recompute_modules),
        # The loss is summed over tokens and divided once, by the tokens of the global batch.
        calculate_per_token_loss=True,
        # gloo reads what an interleaved pipeline sends after the call that sends it: it must not be freed.
        deallocate_pipeline_outputs=not (interleaved and _sends_over_gloo(config)),
        # Without Transformer Engine and apex these fusions crash, call a compiler for tiny functions, or
        # change GELU's variant.
        gradient_accumulation_fusion=False,
        masked_softmax_fusion=False,
        bias_activation_fusion=False,
        bias_dropout_fusion=False,
        apply_rope_fusion=False,
    )


def _sends_over_gloo(config: Config) -> bool:
    backend = config.parallel.distributed_backend
    return backend == "gloo" or (backend == "auto" and not torch.cuda.is_available())


def _normal(std: float) -> Callable[[Tensor], Tensor]:
    return functools.partial(torch.nn.init.normal_, mean=0.0, std=std)


def _init_std(model: ModelConfig) -> float:
    """small_init: Nguyen and Salazar, 2019."""
    return math.sqrt(2 / (5 * model.hidden_size)) if model.init_method == "small_init" else model.init_method_std


def _init_method(model: ModelConfig) -> Callable[[Tensor], Tensor]:
    """Initialises the weights of embeddings and of input projections."""
    return _normal(_init_std(model))


def _output_init_method(model: ModelConfig) -> Callable[[Tensor], Tensor]:
    """Initialises the projections that write to the residual stream.

    scaled_normal: Radford et al., 2019; wang_init: Wang and Komatsuzaki, 2021.
    """
    if model.output_layer_init_method == "wang_init":
        return _normal(2 / (model.num_layers * math.sqrt(model.hidden_size)))
    return _normal(_init_std(model) / math.sqrt(2 * model.num_layers))
