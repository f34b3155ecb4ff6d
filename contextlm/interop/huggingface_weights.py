"""Whole weights of Hugging Face's GPT2LMHeadModel and GPTNeoXForCausalLM, and of our class, to and from ours.

Pure tensor maths on mappings: no file is read, and transformers is not needed. Our side is keyed like a
checkpoint (`weight_names.py`). Results may share memory with what was given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from contextlm.config.schema import Config
from contextlm.errors import UserError
from contextlm.interop.weight_names import VOCABULARY, WeightName, weight_names

# Constants that older versions of transformers stored as if they were weights: causal masks, angles.
_CONSTANTS = re.compile(r".*\.\d+\.(attn|attention)\.(bias|masked_bias|rotary_emb\.inv_freq)")
# Names in files of what is one weight where it is tied.
_OUTPUT_AND_EMBEDDING = {
    "gpt2": ("lm_head.weight", "transformer.wte.weight"),
    "gpt_neox": ("embed_out.weight", "gpt_neox.embed_in.weight"),
    "contextlm": ("lm_head.weight", "model.embed_tokens.weight"),
}


def from_huggingface(model_type: str, weights: Mapping[str, Tensor], config: Config) -> Iterator[tuple[str, Tensor]]:
    """Names and values of our weights one by one, with as many rows per vocabulary as the given ones (unpadded).

    Args:
        model_type: "gpt2", "gpt_neox" or "contextlm".
        weights: by their names in a file or in a model's `state_dict()`; each is asked for when it is its turn.
        config: of the model.

    Raises:
        UserError: a weight is absent or has no place, or GPT-2's output layer is not its embedding.
    """
    given = {name_in_file(model_type, name): name for name in weights if is_weight(name)}
    names = weight_names(model_type, config)
    if not config.model.untie_embeddings_and_output_weights:
        output, embedding = (given.get(name) for name in _OUTPUT_AND_EMBEDDING[model_type])
        given.pop(_OUTPUT_AND_EMBEDDING[model_type][0], None)
        if output is not None and embedding is not None and not torch.equal(weights[output], weights[embedding]):
            raise UserError(f"{output} differs from {embedding}: an output layer of its own has no place in this model")
    _check({name.huggingface for name in names}, set(given))
    for name in names:
        yield name.ours, _to_ours(weights[given[name.huggingface]], name, config.model.num_attention_heads)


def to_huggingface(
    model_type: str, weights: Mapping[str, Tensor], config: Config, vocab_size: int
) -> Iterator[tuple[str, Tensor]]:
    """Weights by their names in a Hugging Face model file, one by one.

    Args:
        model_type: "gpt2", "gpt_neox" or "contextlm".
        weights: ours, whole, the vocabulary padded or not.
        config: of the model.
        vocab_size: rows of the vocabulary to keep: the ids that exist.

    Raises:
        UserError: a weight is absent or has no place (a context head's, for instance).
    """
    names = weight_names(model_type, config)
    _check({name.ours for name in names}, set(weights))
    for name in names:
        value = weights[name.ours][:vocab_size] if name.ours in VOCABULARY else weights[name.ours]
        yield name.huggingface, _to_huggingface(value, name, config.model.num_attention_heads)


def is_weight(name: str) -> bool:
    """Whether a tensor of a file is a weight."""
    return _CONSTANTS.fullmatch(name) is None


def name_in_file(model_type: str, name: str) -> str:
    """A weight's name in a model file, from one of its other names."""
    if model_type == "gpt_neox" and name == "lm_head.weight":  # since transformers 5, in memory only
        return "embed_out.weight"
    # OpenAI's own files are of the model without its output layer, which has no such prefix.
    return f"transformer.{name}" if name.startswith(("wte.", "wpe.", "h.", "ln_f.")) else name


def _check(wanted: set[str], given: set[str]) -> None:
    """Both sides must have the same names."""
    problems = [f"{name}: is missing; check the number of layers" for name in sorted(wanted - given)]
    problems += [f"{name}: has no place in this kind of model" for name in sorted(given - wanted)]
    if problems:
        raise UserError(*problems)


def _to_ours(value: Tensor, name: WeightName, num_heads: int) -> Tensor:
    value = value.T if name.transposed else value
    if name.stacked_qkv:  # (q, k, v) x heads -> heads x (q, k, v)
        value = value.unflatten(0, (3, num_heads, -1)).transpose(0, 1).flatten(0, 2)
    return value.contiguous()


def _to_huggingface(value: Tensor, name: WeightName, num_heads: int) -> Tensor:
    if name.stacked_qkv:
        value = value.unflatten(0, (num_heads, 3, -1)).transpose(0, 1).flatten(0, 2)
    return (value.T if name.transposed else value).contiguous()
