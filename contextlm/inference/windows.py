"""Cut token sequences that are longer than what a model reads at once; score each token once.

Shapes: B windows of S tokens, V ids of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch

from contextlm.inference.subject import Subject


class Window(NamedTuple):
    """What one forward pass reads, and which of its predictions count.

    Attributes:
        inputs: token ids to read.
        targets: the last ones to predict: target -1 follows the last input, target -2 the one before it.
    """

    inputs: list[int]
    targets: list[int]


class Scored(NamedTuple):
    """Of one window: the log-probability of each target, nats, and whether each is the likeliest token."""

    log_probabilities: list[float]
    is_likeliest: list[bool]


def sliding_windows(tokens: Sequence[int], prefix: int | None, length: int, stride: int) -> Iterator[Window]:
    """Windows that predict every token once.

    The first predicts all it reads; each later one reads `length` tokens and predicts the last `stride` of them, so
    that a token has `length - stride` tokens before it at least. A stride of `length` cuts the sequence into pieces,
    each of which begins with the last token of the one before.

    Args:
        tokens: of one document.
        prefix: what stands before the first token; if None, that one is read and not predicted.
        length: tokens that are read at once.
        stride: from 1 to `length`.
    """
    given = list(tokens) if prefix is None else [prefix, *tokens]
    end = min(length + 1, len(given))
    if end > 1:
        yield Window(given[: end - 1], given[1:end])
    while end < len(given):
        count = min(stride, len(given) - end)
        end += count
        yield Window(given[end - length - 1 : end - 1], given[end - count : end])


def scored(
    examined: Subject,
    windows: Sequence[Window],
    batch_size: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Scored]:
    """Every window's scores, in the order given; the longest are computed first, so that a batch has one length."""
    found: list[Scored | None] = [None] * len(windows)
    order = sorted(range(len(windows)), key=lambda index: -len(windows[index].inputs))
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        longest = len(windows[batch[0]].inputs)
        padded = [windows[i].inputs + [0] * (longest - len(windows[i].inputs)) for i in batch]
        logits_BSV = examined.logits(torch.tensor(padded))
        for row, index in zip(logits_BSV, batch, strict=True):
            inputs, targets = windows[index]
            end = len(inputs)
            log_probabilities = row[end - len(targets) : end].float().log_softmax(dim=-1)
            wanted = torch.tensor(targets, device=row.device)
            values = log_probabilities.gather(1, wanted[:, None])[:, 0]
            likeliest = log_probabilities.argmax(dim=-1) == wanted
            found[index] = Scored(values.tolist(), likeliest.tolist())
        progress(first + len(batch), len(order))
    return [result for result in found if result is not None]
