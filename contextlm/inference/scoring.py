"""Score a stream of samples: every token of one pass counts once, whatever the batch size."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from contextlm.analysis.measures import Evaluation
from contextlm.data.samples import Samples
from contextlm.errors import UserError
from contextlm.inference.opened import Opened


def score(
    opened: Opened,
    samples: Samples,
    *,
    batch_size: int,
    max_samples: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, float | int | None]:
    """Token-weighted measures over the first samples of a stream, at most one pass.

    The ends of documents mean what they meant in the model's training.

    Args:
        opened: the model.
        samples: the stream.
        batch_size: samples per forward pass.
        max_samples: how many; all if None.
        progress: told how many samples of how many are done.

    Returns:
        `lm_loss` (nats per token), `perplexity`, `bits_per_byte` (None where a token's text is not known),
        `tokens`, `bytes`, and `unigram_entropy`: the loss of a model that knows these tokens' frequencies alone.

    Raises:
        UserError: no token is scored.
    """
    total = samples.samples_per_epoch if max_samples is None else min(max_samples, samples.samples_per_epoch)
    lengths = opened.tokenizer.token_byte_lengths()
    counts = np.zeros(opened.tokenizer.vocab_size, dtype=np.int64)
    loss_sum = 0.0
    for first, end in _batches(total, batch_size):
        rows = [samples.sample(n) for n in range(first, end)]
        batch = opened.document_ends.batch(torch.from_numpy(np.stack(rows)), opened.device)
        tokens_BS, positions_BS, documents = batch.inputs
        loss_BS = opened.model(tokens_BS, positions_BS, None, labels=batch.labels_BS, packed_seq_params=documents)
        scored_BS = torch.ones_like(loss_BS, dtype=torch.bool) if batch.scored_BS is None else batch.scored_BS
        loss_sum += loss_BS[scored_BS].double().sum().item()
        counts += np.bincount(batch.labels_BS[scored_BS].cpu().numpy(), minlength=len(counts))
        progress(end, total)
    num_tokens = int(counts.sum())
    if num_tokens == 0:
        raise UserError(
            "--data-path: of these samples no token is scored; --eod-mask-loss of the training leaves all out"
        )
    num_bytes = None if lengths is None else int((counts * lengths).sum())
    result = Evaluation(loss_sum / num_tokens, num_tokens, num_bytes or 0)
    shares = counts[counts > 0] / num_tokens
    return {
        "lm_loss": result.lm_loss,
        "perplexity": result.perplexity,
        "bits_per_byte": result.bits_per_byte,
        "tokens": num_tokens,
        "bytes": num_bytes,
        "unigram_entropy": float(-(shares * np.log(shares)).sum()),
    }


def _batches(total: int, batch_size: int) -> Iterator[tuple[int, int]]:
    """Bounds of the batches; the last one takes a remainder of 1 too, in which there is no one to swap with."""
    first = 0
    while first < total:
        end = total if total - first <= batch_size + 1 else first + batch_size
        yield first, end
        first = end
