"""Standard errors of what an evaluation measures. No torch.

Tokens of one text are no independent draws, so what is drawn is a text (a document, or a sample of a dataset): the
error of a mean over tokens is that of a ratio of sums over texts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def ratio_and_error(numerators: Sequence[float], denominators: Sequence[float]) -> tuple[float, float | None]:
    """sum(numerators) / sum(denominators) over texts, and its standard error; None of a single text.

    The error is the usual one of a ratio: that of the mean of (numerator - ratio x denominator).
    """
    total, count = sum(denominators), len(denominators)
    ratio = sum(numerators) / total
    if count < 2:
        return ratio, None
    residuals = (a - ratio * b for a, b in zip(numerators, denominators, strict=True))
    return ratio, math.sqrt(count / (count - 1) * sum(residual**2 for residual in residuals)) / total


def share_and_error(hits: Sequence[bool]) -> tuple[float, float | None]:
    """The share of hits, and its standard error; None of a single one."""
    share = sum(hits) / len(hits)
    return share, math.sqrt(share * (1 - share) / (len(hits) - 1)) if len(hits) > 1 else None


def loss_measures(
    loss_sums: Sequence[float], num_tokens: Sequence[int], num_bytes: Sequence[int] | None
) -> dict[str, float | int | None]:
    """`lm_loss`, `perplexity`, `bits_per_byte`, each with its `_stderr`, and what they were taken on.

    Args:
        loss_sums: nats, of each text.
        num_tokens: predicted tokens of each text.
        num_bytes: UTF-8 bytes of each text; None where they are not known.
    """
    loss, loss_error = ratio_and_error(loss_sums, num_tokens)
    perplexity = math.exp(loss) if loss < 700 else math.inf
    bits, bits_error = None, None
    if num_bytes is not None and sum(num_bytes) > 0:
        bits, bits_error = ratio_and_error([value / math.log(2) for value in loss_sums], num_bytes)
    return {
        "lm_loss": loss,
        "lm_loss_stderr": loss_error,
        "perplexity": perplexity,
        "perplexity_stderr": None if loss_error is None else perplexity * loss_error,
        "bits_per_byte": bits,
        "bits_per_byte_stderr": bits_error,
        "tokens": sum(num_tokens),
        "bytes": None if num_bytes is None else sum(num_bytes),
        "texts": len(num_tokens),
    }
