"""Hugging Face's `config.json` from our configuration, and back. Plain dictionaries: transformers is not needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from contextlm.config.fields import build
from contextlm.config.presets import preset
from contextlm.config.schema import Config
from contextlm.errors import UserError

CLASSES = {"gpt2": "GPT2LMHeadModel", "gpt_neox": "GPTNeoXForCausalLM", "contextlm": "ContextLMForCausalLM"}
# Where transformers finds our class in an exported folder.
_AUTO_MAP = {
    "AutoConfig": "configuration_contextlm.ContextLMConfig",
    "AutoModelForCausalLM": "modeling_contextlm.ContextLMForCausalLM",
}
_GELU = {
    "gelu_new": "tanh",
    "gelu_pytorch_tanh": "tanh",
    "gelu_fast": "tanh",
    "gelu_accurate": "tanh",
    "gelu": "erf",
    "gelu_python": "erf",
}
# Fields of the trainer's that our class takes under the same names.
_CONTEXT_FIELDS = (
    "context_chunk_size",
    "context_predictor_layers",
    "context_pooling",
    "context_fusion",
    "context_shift",
    "context_stop_gradient",
)
_SAME_FIELDS = (
    "hidden_size",
    "num_attention_heads",
    "position_embedding_type",
    "rotary_percent",
    "rotary_base",
    "gelu",
    "parallel_residual",
    "hidden_dropout",
    "attention_dropout",
)


def model_type(config: Config) -> str:
    """Whose class the model is: a plain GPT-2 or GPT-NeoX is transformers' own, any other is ours."""
    model = config.model
    if config.context.enabled:
        return "contextlm"
    if model.position_embedding_type == "rope":
        return "gpt_neox"
    is_gpt2 = not model.parallel_residual and not model.untie_embeddings_and_output_weights
    return "gpt2" if is_gpt2 else "contextlm"


def to_huggingface_config(config: Config, vocab_size: int, eod: int | None) -> dict[str, Any]:
    """The content of `config.json`.

    Args:
        config: of the model.
        vocab_size: ids that exist.
        eod: id that ends a document.
    """
    kind = model_type(config)
    return {
        "architectures": [CLASSES[kind]],
        "model_type": kind,
        "vocab_size": vocab_size,
        **{"gpt2": _gpt2, "gpt_neox": _gpt_neox, "contextlm": _contextlm}[kind](config),
        "initializer_range": config.model.init_method_std,
        "tie_word_embeddings": not config.model.untie_embeddings_and_output_weights,
        "bos_token_id": eod,
        "eos_token_id": eod,
        "dtype": {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}[config.precision],
    }


def _gpt2(config: Config) -> dict[str, Any]:
    model = config.model
    return {
        "n_positions": model.num_positions,
        "n_embd": model.hidden_size,
        "n_layer": model.num_layers,
        "n_head": model.num_attention_heads,
        "n_inner": model.ffn_size,
        "activation_function": {"tanh": "gelu_new", "erf": "gelu"}[model.gelu],
        "resid_pdrop": model.hidden_dropout,
        "embd_pdrop": model.hidden_dropout,
        "attn_pdrop": model.attention_dropout,
        "layer_norm_epsilon": model.norm_epsilon,
    }


def _gpt_neox(config: Config) -> dict[str, Any]:
    model = config.model
    return {
        "hidden_size": model.hidden_size,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_attention_heads,
        "intermediate_size": model.ffn_size,
        "hidden_act": {"tanh": "gelu_new", "erf": "gelu"}[model.gelu],
        "rotary_pct": model.rotary_percent,
        "rotary_emb_base": model.rotary_base,
        "max_position_embeddings": model.num_positions,
        "layer_norm_eps": model.norm_epsilon,
        "hidden_dropout": model.hidden_dropout,
        "attention_dropout": model.attention_dropout,
        "use_parallel_residual": model.parallel_residual,
        "attention_bias": True,
    }


def _contextlm(config: Config) -> dict[str, Any]:
    model = config.model
    return {
        "auto_map": _AUTO_MAP,
        "num_hidden_layers": model.num_layers,
        "intermediate_size": model.ffn_size,
        "max_position_embeddings": model.num_positions,
        "layer_norm_eps": model.norm_epsilon,
        **{name: getattr(model, name) for name in _SAME_FIELDS},
        **{name: getattr(config.context, name) for name in _CONTEXT_FIELDS},
        "context_encoder_layers": config.encoder_layers,
    }


def from_huggingface_config(content: Mapping[str, Any], where: str) -> Config:
    """Our configuration of the model of a `config.json`; what belongs to a run keeps its defaults.

    Args:
        content: of the file.
        where: the file, for the messages.

    Raises:
        UserError: another architecture, or a variant of it that this trainer has not, all of them at once.
    """
    kind = content.get("model_type")
    readers: dict[Any, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
        "gpt2": _from_gpt2,
        "gpt_neox": _from_gpt_neox,
        "contextlm": _from_contextlm,
    }
    if kind not in readers:
        raise UserError(f"{where}: model_type {kind!r} is not supported; convert one of {', '.join(readers)}")
    try:
        problems = [f"{where}: {problem}" for problem in _variants(content)]
        values = readers[kind](content) if not problems else {}
    except KeyError as error:
        problems = [f"{where}: {error.args[0]} is missing; give the config.json of a {kind} model"]
    if problems:
        raise UserError(*problems)
    return build(values, None)


def _variants(content: Mapping[str, Any]) -> list[str]:
    """What makes a model another one than ours."""
    rope = content.get("rope_parameters") or content.get("rope_scaling") or {}
    activation = content.get("activation_function", content.get("hidden_act", "gelu_new"))
    wanted = {
        "scale_attn_weights": (content.get("scale_attn_weights", True), True),
        "scale_attn_by_inverse_layer_idx": (content.get("scale_attn_by_inverse_layer_idx", False), False),
        "add_cross_attention": (content.get("add_cross_attention", False), False),
        "attention_bias": (content.get("attention_bias", True), True),
        "rope_type": (rope.get("rope_type", rope.get("type", "default")), "default"),
    }
    if content["model_type"] == "gpt2":
        wanted["tie_word_embeddings"] = (content.get("tie_word_embeddings", True), True)
    problems = [
        f"{name} {found!r} is not supported; only {only!r} is"
        for name, (found, only) in wanted.items()
        if found != only
    ]
    if content["model_type"] != "contextlm" and activation not in _GELU:
        problems.append(f"activation {activation!r} is not supported; only {', '.join(_GELU)} are")
    return problems


def _from_gpt2(content: Mapping[str, Any]) -> dict[str, Any]:
    return preset_model("gpt2") | {
        "num_layers": content["n_layer"],
        "hidden_size": content["n_embd"],
        "ffn_hidden_size": content.get("n_inner"),
        "num_attention_heads": content["n_head"],
        "seq_length": content["n_positions"],
        "max_position_embeddings": content["n_positions"],
        "norm_epsilon": content.get("layer_norm_epsilon", 1e-5),
        "gelu": _GELU[content.get("activation_function", "gelu_new")],
        "vocab_size": content["vocab_size"],
    }


def _from_gpt_neox(content: Mapping[str, Any]) -> dict[str, Any]:
    rope = content.get("rope_parameters") or {}
    return preset_model("pythia") | {
        "num_layers": content["num_hidden_layers"],
        "hidden_size": content["hidden_size"],
        "ffn_hidden_size": content["intermediate_size"],
        "num_attention_heads": content["num_attention_heads"],
        "seq_length": content["max_position_embeddings"],
        "norm_epsilon": content.get("layer_norm_eps", 1e-5),
        "gelu": _GELU[content.get("hidden_act", "gelu")],
        "rotary_percent": float(content.get("rotary_pct", rope.get("partial_rotary_factor", 0.25))),
        "rotary_base": int(content.get("rotary_emb_base", rope.get("rope_theta", 10000))),
        "parallel_residual": content.get("use_parallel_residual", True),
        "untie_embeddings_and_output_weights": not content.get("tie_word_embeddings", False),
        "vocab_size": content["vocab_size"],
    }


def _from_contextlm(content: Mapping[str, Any]) -> dict[str, Any]:
    family = "pythia" if content["position_embedding_type"] == "rope" else "gpt2"
    return preset_model(family) | {
        **{name: content[name] for name in (*_SAME_FIELDS, *_CONTEXT_FIELDS, "context_encoder_layers")},
        "num_layers": content["num_hidden_layers"],
        "ffn_hidden_size": content["intermediate_size"],
        "seq_length": content["max_position_embeddings"],
        "max_position_embeddings": content["max_position_embeddings"] if family == "gpt2" else None,
        "norm_epsilon": content["layer_norm_eps"],
        "untie_embeddings_and_output_weights": not content["tie_word_embeddings"],
        "vocab_size": content["vocab_size"],
    }


def preset_model(family: str) -> dict[str, Any]:
    """The model's fields of a family, its sizes to be replaced."""
    return dict(preset(f"{family}-tiny")["model"])


def context_facts(config: Config) -> dict[str, Any]:
    """The head's switches, for the model card."""
    return {name: value for name, value in asdict(config.context).items() if name in _CONTEXT_FIELDS}
