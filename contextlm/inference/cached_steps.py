"""One call of a model of transformers with its cache, whose name differs between versions.

Shapes: B rows, T new columns, K columns in all, V ids of the vocabulary.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def cached_step(
    model: torch.nn.Module, ids_BT: Tensor, cache: Any, mask_BK: Tensor | None = None, num_kept: int = 0
) -> tuple[Tensor, Any]:
    """Read tokens behind those in the cache; returns logits [B, T, V] and the cache with them.

    Args:
        model: of transformers.
        ids_BT: new tokens.
        cache: None at first, then what the last call returned.
        mask_BK: 0 for padding, of all columns so far; positions then count the real tokens of a row.
        num_kept: logits of so many last columns; of all if 0.
    """
    given: dict[str, Any] = {"use_cache": True, "logits_to_keep": num_kept}
    if cache is not None:
        given[_cache_name()] = cache
    if mask_BK is not None:
        positions_BK = (mask_BK.cumsum(dim=1) - 1).clamp(min=0)
        given |= {"attention_mask": mask_BK, "position_ids": positions_BK[:, -ids_BT.shape[1] :]}
    output = model(ids_BT, **given)
    return output.logits, getattr(output, _cache_name())


@functools.cache
def _cache_name() -> str:
    from transformers.modeling_outputs import CausalLMOutputWithPast

    return "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"
