"""Continue a text token by token, with a cache: each new token is read once.

Shapes: V ids of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from contextlm.inference.cached_steps import cached_step
from contextlm.inference.subject import Subject


def continuation(
    examined: Subject,
    prompt: list[int],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    seed: int = 0,
) -> Iterator[int]:
    """New token ids, one by one, until the end of the document or `max_new_tokens`.

    A model reads `num_positions` tokens at most. Of a prompt that is longer it reads the last ones; when they are full,
    it forgets the older half and reads the newer half again.

    Args:
        examined: a model of transformers: a folder's, or the twin of a checkpoint.
        prompt: token ids to continue; the end-of-document token stands in for an empty one.
        max_new_tokens: how many at most.
        temperature: 0 takes the likeliest token.
        top_k: sample among this many likeliest tokens only.
        top_p: sample among the likeliest tokens that together have this probability.
        seed: of the draws.
    """
    generator = torch.Generator(examined.device).manual_seed(seed)
    end = examined.tokenizer.eod
    tokens = list(prompt) or [0 if end is None else end]
    unread, num_read, cache = tokens[-examined.num_positions :], 0, None
    for _ in range(max_new_tokens):
        if num_read + len(unread) > examined.num_positions:
            unread, num_read, cache = tokens[-(examined.num_positions // 2 or 1) :], 0, None
        logits_BTV, cache = cached_step(
            examined.model, torch.tensor([unread], device=examined.device), cache, num_kept=1
        )
        num_read += len(unread)
        token = _draw(logits_BTV[0, -1, : examined.tokenizer.vocab_size].float(), temperature, top_k, top_p, generator)
        if token == end:
            return
        tokens.append(token)
        unread = [token]
        yield token


def _draw(logits_V: Tensor, temperature: float, top_k: int | None, top_p: float, generator: torch.Generator) -> int:
    """One token id."""
    if temperature == 0:
        return int(logits_V.argmax())
    values, ids = torch.sort(logits_V / temperature, descending=True)
    probabilities = values.softmax(dim=0)
    # A token stays while those before it have not yet reached top_p: the likeliest always stays.
    outside = probabilities.cumsum(dim=0) - probabilities >= top_p
    if top_k is not None:
        outside[top_k:] = True
    probabilities[outside] = 0
    return int(ids[torch.multinomial(probabilities, 1, generator=generator)])
