"""Score a stream of samples: every token of one pass counts once, whatever the batch size."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from contextlm.analysis.errors_of_means import loss_measures
from contextlm.data.samples import Samples
from contextlm.errors import UserError
from contextlm.inference.subject import Subject


def score(
    examined: Subject,
    samples: Samples,
    *,
    batch_size: int,
    max_samples: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, float | int | None]:
    """Token-weighted measures over the first samples of a stream, at most one pass.

    Args:
        examined: the model.
        samples: the stream.
        batch_size: samples per forward pass.
        max_samples: how many; all if None.
        progress: told how many samples of how many are done.

    Returns:
        `lm_loss` (nats per token), `perplexity`, `bits_per_byte` (None where a token's text is not known), each with
        its standard error over samples, `tokens`, `bytes`, and `unigram_entropy`: the loss of a model that knows these
        tokens' frequencies alone. The ends of documents mean what they meant in the model's training.

    Raises:
        UserError: no token is scored.
    """
    lengths = examined.tokenizer.token_byte_lengths()
    counts = np.zeros(examined.tokenizer.vocab_size, dtype=np.int64)
    losses: list[float] = []
    num_tokens: list[int] = []
    sizes: list[int] = []
    for tokens, done, total in batches(samples, batch_size, max_samples):
        loss_BS, labels_BS = examined.losses(tokens).double().cpu().numpy(), tokens[:, 1:].numpy()
        scored_BS = ~np.isnan(loss_BS)
        losses += np.nansum(loss_BS, axis=1).tolist()
        num_tokens += scored_BS.sum(axis=1).tolist()
        counts += np.bincount(labels_BS[scored_BS], minlength=len(counts))
        if lengths is not None:
            sizes += (lengths[labels_BS] * scored_BS).sum(axis=1).tolist()
        progress(done, total)
    if not sum(num_tokens):
        raise UserError(
            "--data-path: of these samples no token is scored; --eod-mask-loss of the training leaves all out"
        )
    shares = counts[counts > 0] / counts.sum()
    return {
        **loss_measures(losses, num_tokens, sizes if lengths is not None else None),
        "unigram_entropy": float(-(shares * np.log(shares)).sum()),
    }


def batches(samples: Samples, batch_size: int, max_samples: int | None) -> Iterator[tuple[torch.Tensor, int, int]]:
    """Token ids [B, S + 1] of the first samples; and how many samples of how many these complete."""
    total = samples.samples_per_epoch if max_samples is None else min(max_samples, samples.samples_per_epoch)
    for first, end in _bounds(total, batch_size):
        yield torch.from_numpy(np.stack([samples.sample(n) for n in range(first, end)])), end, total


def _bounds(total: int, batch_size: int) -> Iterator[tuple[int, int]]:
    """Bounds of the batches; the last one takes a remainder of 1 too, in which there is no one to swap with."""
    first = 0
    while first < total:
        end = total if total - first <= batch_size + 1 else first + batch_size
        yield first, end
        first = end
