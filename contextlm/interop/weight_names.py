"""The two-way table between weight names in Hugging Face's files and in our checkpoints.

One row is one weight; `{layer}` stands for the layer's number on both sides, of the backbone or of the predictor. The
table of our own class has every weight that a model may have; `weight_names` leaves out what one model has not. Read
next: `huggingface_weights.py`, which applies the table.
"""

from __future__ import annotations

from typing import NamedTuple

from contextlm.config.schema import Config


class WeightName(NamedTuple):
    """One weight under both names.

    Args:
        huggingface: its name in a model file of Hugging Face.
        ours: its key in a checkpoint.
        transposed: Hugging Face stores [in, out] (GPT-2's Conv1D), we store [out, in].
        stacked_qkv: Hugging Face stores all queries, all keys, all values; we store them head by head.
    """

    huggingface: str
    ours: str
    transposed: bool = False
    stacked_qkv: bool = False


_GPT2_LAYER, _NEOX_LAYER, _TWIN_LAYER, _OUR_LAYER = (
    "transformer.h.{layer}",
    "gpt_neox.layers.{layer}",
    "model.layers.{layer}",
    "decoder.layers.{layer}",
)


def _twin_layer(theirs: str, ours: str) -> tuple[WeightName, ...]:
    """A layer of our own class, which the predictor has too; its matrices are ours as they are."""
    return (
        WeightName(f"{theirs}.input_layernorm.weight", f"{ours}.self_attention.linear_qkv.layer_norm_weight"),
        WeightName(f"{theirs}.input_layernorm.bias", f"{ours}.self_attention.linear_qkv.layer_norm_bias"),
        WeightName(f"{theirs}.self_attn.qkv_proj.weight", f"{ours}.self_attention.linear_qkv.weight"),
        WeightName(f"{theirs}.self_attn.qkv_proj.bias", f"{ours}.self_attention.linear_qkv.bias"),
        WeightName(f"{theirs}.self_attn.o_proj.weight", f"{ours}.self_attention.linear_proj.weight"),
        WeightName(f"{theirs}.self_attn.o_proj.bias", f"{ours}.self_attention.linear_proj.bias"),
        WeightName(f"{theirs}.post_attention_layernorm.weight", f"{ours}.mlp.linear_fc1.layer_norm_weight"),
        WeightName(f"{theirs}.post_attention_layernorm.bias", f"{ours}.mlp.linear_fc1.layer_norm_bias"),
        WeightName(f"{theirs}.mlp.up_proj.weight", f"{ours}.mlp.linear_fc1.weight"),
        WeightName(f"{theirs}.mlp.up_proj.bias", f"{ours}.mlp.linear_fc1.bias"),
        WeightName(f"{theirs}.mlp.down_proj.weight", f"{ours}.mlp.linear_fc2.weight"),
        WeightName(f"{theirs}.mlp.down_proj.bias", f"{ours}.mlp.linear_fc2.bias"),
    )


# By Hugging Face's `model_type`. Our norms carry the names that Transformer Engine gives them when it fuses
# a norm into the linear layer behind it.
TABLES: dict[str, tuple[WeightName, ...]] = {
    "gpt2": (
        WeightName("transformer.wte.weight", "embedding.word_embeddings.weight"),
        WeightName("transformer.wpe.weight", "embedding.position_embeddings.weight"),
        WeightName(f"{_GPT2_LAYER}.ln_1.weight", f"{_OUR_LAYER}.self_attention.linear_qkv.layer_norm_weight"),
        WeightName(f"{_GPT2_LAYER}.ln_1.bias", f"{_OUR_LAYER}.self_attention.linear_qkv.layer_norm_bias"),
        WeightName(
            f"{_GPT2_LAYER}.attn.c_attn.weight",
            f"{_OUR_LAYER}.self_attention.linear_qkv.weight",
            transposed=True,
            stacked_qkv=True,
        ),
        WeightName(
            f"{_GPT2_LAYER}.attn.c_attn.bias",
            f"{_OUR_LAYER}.self_attention.linear_qkv.bias",
            stacked_qkv=True,
        ),
        WeightName(
            f"{_GPT2_LAYER}.attn.c_proj.weight",
            f"{_OUR_LAYER}.self_attention.linear_proj.weight",
            transposed=True,
        ),
        WeightName(f"{_GPT2_LAYER}.attn.c_proj.bias", f"{_OUR_LAYER}.self_attention.linear_proj.bias"),
        WeightName(f"{_GPT2_LAYER}.ln_2.weight", f"{_OUR_LAYER}.mlp.linear_fc1.layer_norm_weight"),
        WeightName(f"{_GPT2_LAYER}.ln_2.bias", f"{_OUR_LAYER}.mlp.linear_fc1.layer_norm_bias"),
        WeightName(f"{_GPT2_LAYER}.mlp.c_fc.weight", f"{_OUR_LAYER}.mlp.linear_fc1.weight", transposed=True),
        WeightName(f"{_GPT2_LAYER}.mlp.c_fc.bias", f"{_OUR_LAYER}.mlp.linear_fc1.bias"),
        WeightName(f"{_GPT2_LAYER}.mlp.c_proj.weight", f"{_OUR_LAYER}.mlp.linear_fc2.weight", transposed=True),
        WeightName(f"{_GPT2_LAYER}.mlp.c_proj.bias", f"{_OUR_LAYER}.mlp.linear_fc2.bias"),
        WeightName("transformer.ln_f.weight", "decoder.final_layernorm.weight"),
        WeightName("transformer.ln_f.bias", "decoder.final_layernorm.bias"),
    ),
    "gpt_neox": (
        WeightName("gpt_neox.embed_in.weight", "embedding.word_embeddings.weight"),
        WeightName(
            f"{_NEOX_LAYER}.input_layernorm.weight",
            f"{_OUR_LAYER}.self_attention.linear_qkv.layer_norm_weight",
        ),
        WeightName(f"{_NEOX_LAYER}.input_layernorm.bias", f"{_OUR_LAYER}.self_attention.linear_qkv.layer_norm_bias"),
        WeightName(
            f"{_NEOX_LAYER}.attention.query_key_value.weight",
            f"{_OUR_LAYER}.self_attention.linear_qkv.weight",
        ),
        WeightName(f"{_NEOX_LAYER}.attention.query_key_value.bias", f"{_OUR_LAYER}.self_attention.linear_qkv.bias"),
        WeightName(f"{_NEOX_LAYER}.attention.dense.weight", f"{_OUR_LAYER}.self_attention.linear_proj.weight"),
        WeightName(f"{_NEOX_LAYER}.attention.dense.bias", f"{_OUR_LAYER}.self_attention.linear_proj.bias"),
        WeightName(f"{_NEOX_LAYER}.post_attention_layernorm.weight", f"{_OUR_LAYER}.mlp.linear_fc1.layer_norm_weight"),
        WeightName(f"{_NEOX_LAYER}.post_attention_layernorm.bias", f"{_OUR_LAYER}.mlp.linear_fc1.layer_norm_bias"),
        WeightName(f"{_NEOX_LAYER}.mlp.dense_h_to_4h.weight", f"{_OUR_LAYER}.mlp.linear_fc1.weight"),
        WeightName(f"{_NEOX_LAYER}.mlp.dense_h_to_4h.bias", f"{_OUR_LAYER}.mlp.linear_fc1.bias"),
        WeightName(f"{_NEOX_LAYER}.mlp.dense_4h_to_h.weight", f"{_OUR_LAYER}.mlp.linear_fc2.weight"),
        WeightName(f"{_NEOX_LAYER}.mlp.dense_4h_to_h.bias", f"{_OUR_LAYER}.mlp.linear_fc2.bias"),
        WeightName("gpt_neox.final_layer_norm.weight", "decoder.final_layernorm.weight"),
        WeightName("gpt_neox.final_layer_norm.bias", "decoder.final_layernorm.bias"),
        WeightName("embed_out.weight", "output_layer.weight"),
    ),
    "contextlm": (
        WeightName("model.embed_tokens.weight", "embedding.word_embeddings.weight"),
        WeightName("model.embed_positions.weight", "embedding.position_embeddings.weight"),
        *_twin_layer(_TWIN_LAYER, _OUR_LAYER),
        *_twin_layer("model.context_head.predictor.layers.{layer}", "context_head.predictor.layers.{layer}"),
        WeightName("model.context_head.predictor.norm.weight", "context_head.predictor.final_layernorm.weight"),
        WeightName("model.context_head.predictor.norm.bias", "context_head.predictor.final_layernorm.bias"),
        WeightName("model.context_head.gate", "context_head.gate"),
        WeightName("model.context_head.token_norm.weight", "context_head.token_norm.weight"),
        WeightName("model.context_head.token_norm.bias", "context_head.token_norm.bias"),
        WeightName("model.norm.weight", "decoder.final_layernorm.weight"),
        WeightName("model.norm.bias", "decoder.final_layernorm.bias"),
        WeightName("lm_head.weight", "output_layer.weight"),
    ),
}

# The weights with one row per token id: ours may have rows of padding.
VOCABULARY = ("embedding.word_embeddings.weight", "output_layer.weight")


def weight_names(model_type: str, config: Config) -> list[WeightName]:
    """Every weight of a model, layers numbered from 0.

    Args:
        model_type: Hugging Face's word, "gpt2", "gpt_neox" or "contextlm".
        config: of the model.
    """
    absent = _absent(config)
    names = []
    for row in TABLES[model_type]:
        if row.ours.startswith(absent):
            continue
        predictor = row.ours.startswith("context_head.")
        count = config.context.context_predictor_layers if predictor else config.model.num_layers
        layers = range(count) if "{layer}" in row.ours else (None,)
        names += [
            row._replace(huggingface=row.huggingface.format(layer=i), ours=row.ours.format(layer=i)) for i in layers
        ]
    return names


def _absent(config: Config) -> tuple[str, ...]:
    """Beginnings of the names, in our checkpoints, of weights that a model has not."""
    model, context = config.model, config.context
    absent = {
        "embedding.position_embeddings.": model.position_embedding_type != "learned_absolute",
        "output_layer.": not model.untie_embeddings_and_output_weights,
        "context_head.": not context.enabled,
        "context_head.gate": context.context_fusion not in ("gated", "gated_channel"),
        "context_head.token_norm.": context.context_fusion != "norm_add",
        "context_head.predictor.final_layernorm.": context.context_fusion == "add",
    }
    return tuple(beginning for beginning, is_absent in absent.items() if is_absent)
