"""Whole weights of Hugging Face's GPT2LMHeadModel and GPTNeoXForCausalLM to and from those of our backbones.

Pure tensor maths on dictionaries: no file is read, and transformers is not needed. Our side is keyed like a
checkpoint (`weight_names.py`). Results may share memory with what was given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from contextlm.errors import UserError
from contextlm.interop.weight_names import VOCABULARY, WeightName, weight_names

# Constants that older versions of transformers stored as if they were weights: causal masks, angles.
_CONSTANTS = re.compile(r".*\.\d+\.(attn|attention)\.(bias|masked_bias|rotary_emb\.inv_freq)")


def from_huggingface(
    model_type: str, weights: Mapping[str, Tensor], num_layers: int, num_attention_heads: int
) -> dict[str, Tensor]:
    """Our weights, with as many rows per vocabulary as the given ones (unpadded).

    Args:
        model_type: "gpt2" or "gpt_neox".
        weights: by their names in a file or in a model's `state_dict()`.
        num_layers, num_attention_heads: of the model.

    Raises:
        UserError: a weight is absent or has no place, or GPT-2's output layer is not its embedding.
    """
    given = {
        _name_in_file(model_type, name): value for name, value in weights.items() if not _CONSTANTS.fullmatch(name)
    }
    tied = given.pop("lm_head.weight", None)
    if tied is not None and not torch.equal(tied, given.get("transformer.wte.weight", tied)):
        raise UserError("lm_head.weight differs from transformer.wte.weight: an untied GPT-2 has no place here")
    names = weight_names(model_type, num_layers)
    _check({name.huggingface for name in names}, set(given))
    return {name.ours: _to_ours(given[name.huggingface], name, num_attention_heads) for name in names}


def to_huggingface(
    model_type: str, weights: Mapping[str, Tensor], num_layers: int, num_attention_heads: int, vocab_size: int
) -> dict[str, Tensor]:
    """Weights by their names in a Hugging Face model file.

    Args:
        model_type: "gpt2" or "gpt_neox".
        weights: ours, whole, the vocabulary padded or not.
        num_layers, num_attention_heads: of the model.
        vocab_size: rows of the vocabulary to keep: the ids that exist.

    Raises:
        UserError: a weight is absent or has no place (a context head's, for instance).
    """
    names = weight_names(model_type, num_layers)
    _check({name.ours for name in names}, set(weights))
    return {
        name.huggingface: _to_huggingface(
            weights[name.ours][:vocab_size] if name.ours in VOCABULARY else weights[name.ours],
            name,
            num_attention_heads,
        )
        for name in names
    }


def _name_in_file(model_type: str, name: str) -> str:
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
