"""Continue a text token by token.

Shapes: S tokens so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from contextlm.errors import UserError
from contextlm.inference.opened import Opened


def continuation(
    opened: Opened,
    prompt: list[int],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    seed: int = 0,
) -> Iterator[int]:
    """New token ids, one by one, until the end of the document or `max_new_tokens`.

    The model reads the whole text again for every token, the last `seq_length` tokens of it at most.

    Args:
        opened: the model.
        prompt: token ids to continue; the end-of-document token stands in for an empty one.
        max_new_tokens: how many at most.
        temperature: 0 takes the likeliest token.
        top_k: sample among this many likeliest tokens only.
        top_p: sample among the likeliest tokens that together have this probability.
        seed: of the draws.

    Raises:
        UserError: an empty prompt, to a model that never learned how a document begins.
    """
    if not prompt and opened.document_ends.eod_mask_loss:
        raise UserError(
            "--prompt: empty, but the model was trained with --eod-mask-loss and never learned how a document begins; "
            "give it a beginning"
        )
    generator = torch.Generator(opened.device).manual_seed(seed)
    end = opened.tokenizer.eod
    tokens = list(prompt) or [0 if end is None else end]
    for _ in range(max_new_tokens):
        window = tokens[-opened.config.model.seq_length :]
        on_host = torch.tensor([window])
        inputs_BS, positions_BS, documents = opened.document_ends.inputs(on_host, on_host.to(opened.device))
        logits_V = opened.model(inputs_BS, positions_BS, None, packed_seq_params=documents)[0, -1].float()
        token = _draw(logits_V, temperature, top_k, top_p, generator)
        if token == end:
            return
        tokens.append(token)
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
