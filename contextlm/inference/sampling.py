"""Continue a text token by token, with a cache: each new token is read once.

Shapes: V ids of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from contextlm.errors import UserError
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
        examined: a model of transformers, which has a cache, or the trainer's, which reads all tokens for each new one.
        prompt: token ids to continue; the end-of-document token stands in for an empty one.
        max_new_tokens: how many at most.
        temperature: 0 takes the likeliest token.
        top_k: sample among this many likeliest tokens only.
        top_p: sample among the likeliest tokens that together have this probability.
        seed: of the draws.

    Raises:
        UserError: an empty prompt, to a model that never learned how a document begins.
    """
    if not prompt and examined.document_ends is not None and examined.document_ends.eod_mask_loss:
        raise UserError(
            "--prompt: empty, but the model was trained with --eod-mask-loss and never learned how a document begins; "
            "give it a beginning"
        )
    generator = torch.Generator(examined.device).manual_seed(seed)
    end = examined.tokenizer.eod
    tokens = list(prompt) or [0 if end is None else end]
    next_logits = _CachedReader(examined) if examined.trainer is None else _reads_anew(examined)
    for _ in range(max_new_tokens):
        token = _draw(next_logits(tokens)[: examined.tokenizer.vocab_size], temperature, top_k, top_p, generator)
        if token == end:
            return
        tokens.append(token)
        yield token


class _CachedReader:
    """Reads what it has not read yet, behind a cache; when all positions are full, the newer half again."""

    def __init__(self, examined: Subject) -> None:
        self.examined, self.cache, self.num_cached, self.num_read = examined, None, 0, 0

    def __call__(self, tokens: list[int]) -> Tensor:
        """Logits [V] of the token that follows, fp32."""
        positions = self.examined.num_positions
        unread = tokens[self.num_read :] if self.num_read else tokens[-positions:]
        if self.num_cached + len(unread) > positions:
            self.cache, self.num_cached, unread = None, 0, tokens[-(positions // 2 or 1) :]
        ids_BT = torch.tensor([unread], device=self.examined.device)
        logits_BTV, self.cache = cached_step(self.examined.model, ids_BT, self.cache, num_kept=1)
        self.num_cached, self.num_read = self.num_cached + len(unread), len(tokens)
        return logits_BTV[0, -1].float()


def _reads_anew(examined: Subject) -> Callable[[list[int]], Tensor]:
    """The trainer's model, which knows the ends of documents and has no cache."""
    return lambda tokens: examined.logits(torch.tensor([tokens[-examined.num_positions :]]))[0, -1].float()


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
