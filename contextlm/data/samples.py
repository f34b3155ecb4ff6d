"""Which tokens are sample n of a dataset.

The order depends on the data, the seed and n alone: not on the layout, the batch size, or how long the
run is. Epochs are shuffled one by one from (seed, epoch), so asking for more samples never changes earlier
ones. `blended_samples.py` mixes several datasets; `loader.py` turns samples into batches.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from contextlm.data.indexed import IndexedDataset
from contextlm.errors import UserError


class Samples(Protocol):
    """An endless sequence of samples: `EpochSamples` or `BlendedSamples`."""

    samples_per_epoch: int

    def sample(self, n: int) -> np.ndarray:
        """Sample n >= 0, int64 `[seq_length + 1]`: the inputs and, one further, the labels."""
        ...


class _Epoch(NamedTuple):
    number: int
    documents: np.ndarray  # shuffled document numbers, [documents]
    starts: np.ndarray  # where each begins in the epoch's token stream, int64 [documents]
    order: np.ndarray  # shuffled sample numbers, [samples_per_epoch]


class EpochSamples:
    """Samples of one dataset, epoch after epoch.

    An epoch shuffles the documents and joins them into one stream. Its samples are seq_length + 1 tokens
    every seq_length tokens (the last token of one is the first of the next: as a label, then as an
    input); what is too short for one more sample is dropped. Then the samples are shuffled too.

    Args:
        dataset: the tokens.
        documents: range of non-empty documents to draw from (indices into `dataset.document_bounds`).
        seq_length: tokens that the model reads at once.
        seed: together with the number of the epoch it decides the order.
        vocab_size: ids must be below it, if given: a large dataset is not read whole before training.

    Attributes:
        samples_per_epoch: the same for every epoch.

    Raises:
        ValueError: the documents hold less than one sample.
    """

    def __init__(
        self, dataset: IndexedDataset, documents: slice, seq_length: int, seed: int, vocab_size: int | None = None
    ) -> None:
        first, last, _ = documents.indices(len(dataset.document_bounds) - 1)
        self._dataset = dataset
        self._bounds = dataset.document_bounds[first : last + 1]
        self._seq_length = seq_length
        self._seed = seed
        self._vocab_size = vocab_size
        self.num_tokens = int(self._bounds[-1] - self._bounds[0]) if last > first else 0
        self.samples_per_epoch = max(0, self.num_tokens - 1) // seq_length
        if not self.samples_per_epoch:
            raise ValueError(f"{dataset.prefix}: {self.num_tokens} tokens, a sample needs {seq_length + 1}")
        self._epoch: _Epoch | None = None

    def sample(self, n: int) -> np.ndarray:
        """Sample n >= 0, int64 `[seq_length + 1]`.

        Raises:
            UserError: an id is outside the vocabulary.
        """
        if n < 0:
            raise IndexError(f"sample {n}")
        number, place = divmod(n, self.samples_per_epoch)
        if self._epoch is None or self._epoch.number != number:
            self._epoch = self._shuffle(number)
        tokens = self._read(self._epoch, int(self._epoch.order[place]) * self._seq_length)
        if self._vocab_size is not None and (tokens.min() < 0 or tokens.max() >= self._vocab_size):
            raise UserError(
                f"--data-path {self._dataset.prefix}: sample {n} holds token id {tokens.max()}, outside the vocabulary "
                f"of {self._vocab_size}; make the dataset again with the run's tokenizer"
            )
        return tokens

    def _shuffle(self, number: int) -> _Epoch:
        documents = _permutation(len(self._bounds) - 1, self._seed, number, purpose=0)
        lengths = np.diff(self._bounds)[documents]
        starts = np.cumsum(lengths) - lengths
        return _Epoch(number, documents, starts, _permutation(self.samples_per_epoch, self._seed, number, purpose=1))

    def _read(self, epoch: _Epoch, begin: int) -> np.ndarray:
        """The seq_length + 1 tokens of an epoch's stream from position `begin` on."""
        tokens = np.empty(self._seq_length + 1, dtype=np.int64)
        place = int(np.searchsorted(epoch.starts, begin, side="right")) - 1
        offset = begin - int(epoch.starts[place])
        filled = 0
        while filled < len(tokens):
            document = int(epoch.documents[place])
            start, end = int(self._bounds[document]) + offset, int(self._bounds[document + 1])
            length = min(end - start, len(tokens) - filled)
            tokens[filled : filled + length] = self._dataset.tokens(start, length)
            filled += length
            place, offset = place + 1, 0
        return tokens


def _permutation(size: int, seed: int, epoch: int, purpose: int) -> np.ndarray:
    """A random order of `range(size)`.

    RandomState's stream is frozen by NumPy's policy, Generator's is not: the order of a run must survive an
    upgrade of NumPy.
    """
    order = np.arange(size, dtype=np.uint32 if size < 2**32 else np.int64)
    np.random.RandomState(np.random.MT19937(np.random.SeedSequence([seed, epoch, purpose]))).shuffle(order)
    return order
