"""The order of one epoch: which document follows which, and where each sample begins.

An epoch shuffles the documents and joins them into one stream. Its samples are seq_length + 1 tokens every seq_length
tokens (the last token of one is the first of the next: as a label, then as an input); what is too short for one more
sample is dropped. Then the samples are shuffled too. All of it follows from the document lengths, the sample length,
the seed and the epoch. Kept on disk by `index_cache.py`, read by `samples.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class EpochIndex(NamedTuple):
    """The order of one epoch of D documents and N samples.

    Attributes:
        documents: numbers of the documents in the order of the stream, `[D]`.
        places: of sample n, where in `documents` it begins, `[N]`.
        offsets: of sample n, how many tokens of that document come before it, `[N]`.
    """

    documents: np.ndarray
    places: np.ndarray
    offsets: np.ndarray


def num_samples(num_tokens: int, seq_length: int) -> int:
    """Samples of an epoch; the last one needs a token more, as a label."""
    return max(0, num_tokens - 1) // seq_length


def index_type(limit: int) -> np.dtype:
    """The type of numbers from 0 to below `limit`."""
    return np.dtype("<u4") if limit < 2**32 else np.dtype("<i8")


def epoch_index(
    bounds: np.ndarray, seq_length: int, seed: int, epoch: int, tell: Callable[[str], None] = lambda stage: None
) -> EpochIndex:
    """The order of an epoch.

    Args:
        bounds: where the documents begin in the dataset, then where the last one ends, `[D + 1]`; none is empty.
        tell: is told what is done.
    """
    documents = _permutation(len(bounds) - 1, seed, epoch, purpose=0)
    tell("documents shuffled")
    places, offsets = sample_begins(np.diff(bounds)[documents], seq_length)
    tell("samples cut")
    order = _permutation(len(places), seed, epoch, purpose=1)
    tell("samples shuffled")
    return EpochIndex(documents, places[order], offsets[order])


def sample_begins(lengths: np.ndarray, seq_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the samples of a stream of documents of these lengths begin, in the order of the stream.

    Returns:
        the number of the document and the tokens of it that come before, `[samples]` each.
    """
    ends = np.cumsum(lengths, dtype=np.int64)
    num_tokens = int(ends[-1]) if len(ends) else 0
    begins = np.arange(num_samples(num_tokens, seq_length), dtype=np.int64) * seq_length
    places = np.searchsorted(ends, begins, side="right")
    begins -= ends[places]
    begins += lengths[places]
    return places.astype(index_type(len(lengths))), begins.astype(index_type(num_tokens))


def _permutation(size: int, seed: int, epoch: int, purpose: int) -> np.ndarray:
    """A random order of `range(size)`.

    RandomState's stream is frozen by NumPy's policy, Generator's is not: the order of a run must survive an
    upgrade of NumPy.
    """
    order = np.arange(size, dtype=index_type(size))
    np.random.RandomState(np.random.MT19937(np.random.SeedSequence([seed, epoch, purpose]))).shuffle(order)
    return order
