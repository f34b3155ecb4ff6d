"""Models of transformers' ContextLM class, small and with random weights. B rows, S tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.random_weights import randomize
from tests.small_configs import small_config

VOCAB_SIZE = 97
GPT2 = {"num_layers": 3, "hidden_size": 32}
PYTHIA = GPT2 | {"backbone": "pythia"}


def twin(dtype: torch.dtype = torch.float64, **values: Any) -> Any:
    """The model of `small_config(**values)`, in evaluation mode."""
    from contextlm.interop.huggingface import ContextLMConfig, ContextLMForCausalLM
    from contextlm.interop.huggingface_config import to_huggingface_config

    content = to_huggingface_config(small_config(**GPT2 | values), VOCAB_SIZE, 0)
    wanted = {name: value for name, value in content.items() if name not in ("auto_map", "dtype", "model_type")}
    model: Any = ContextLMForCausalLM(ContextLMConfig(**wanted))
    randomize(model)
    return model.to(dtype).eval()


def cache_of(output: Any) -> Any:
    """The cache in a model's output, whatever this transformers calls it."""
    return output.cache if "cache" in output else output.past_key_values


def with_cache(cache: Any) -> dict[str, Any]:
    """The argument that hands a cache over; transformers knows two names, and so does the model."""
    return {"cache": cache}


def ids(rows: int, length: int, seed: int = 0) -> Tensor:
    """Random token ids [B, S]."""
    return torch.randint(VOCAB_SIZE, (rows, length), generator=torch.Generator().manual_seed(seed))


def padded(rows: list[Tensor], side: str) -> tuple[Tensor, Tensor]:
    """Texts of unequal lengths as one batch: token ids and attention mask, [B, S]."""
    length = max(len(row) for row in rows)
    tokens, mask = torch.zeros(2, len(rows), length, dtype=torch.long)
    for b, row in enumerate(rows):
        place = slice(length - len(row), length) if side == "left" else slice(0, len(row))
        tokens[b, place], mask[b, place] = row, 1
    return tokens, mask
