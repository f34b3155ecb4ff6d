"""Which tokens are sample n of a dataset.

The order depends on the data, the seed and n alone: not on the layout, the batch size, or how long the
run is. Epochs are shuffled one by one from (seed, epoch), so asking for more samples never changes earlier
ones (`sample_index.py`). `blended_samples.py` mixes several datasets; `loader.py` turns samples into batches.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from contextlm.data.index_cache import Array, IndexCache
from contextlm.data.indexed import IndexedDataset
from contextlm.data.sample_index import EpochIndex, epoch_index, index_type, num_samples
from contextlm.errors import UserError


class Part(NamedTuple):
    """What one dataset gives to the first samples of a split.

    Attributes:
        prefix: of the dataset.
        share: of the split's samples; over all datasets the sum is 1.
        documents, tokens: that there are.
        samples: of one epoch of the dataset.
        taken: how many of the first samples come from it.
    """

    prefix: str
    share: float
    documents: int
    tokens: int
    samples: int
    taken: int


class Samples(Protocol):
    """An endless sequence of samples: `EpochSamples` or `BlendedSamples`."""

    samples_per_epoch: int

    def sample(self, n: int) -> np.ndarray:
        """Sample n >= 0, int64 `[seq_length + 1]`: the inputs and, one further, the labels."""
        ...


class SourcedSamples(Samples, Protocol):
    """Samples that know the datasets they come from."""

    def parts(self, n: int) -> list[Part]:
        """The datasets, and what each gives to the first n samples."""
        ...


class EpochSamples:
    """Samples of one dataset, epoch after epoch, each in an order of its own.

    Args:
        dataset: the tokens.
        documents: range of non-empty documents to draw from (indices into `dataset.document_bounds`).
        seq_length: tokens that the model reads at once.
        seed: together with the number of the epoch it decides the order.
        vocab_size: ids must be below it, if given: a large dataset is not read whole before training.
        cache: where the orders of a large dataset are kept; in memory if not given.

    Attributes:
        prefix: of the dataset.
        num_documents, num_tokens: of the range.
        samples_per_epoch: the same for every epoch.

    Raises:
        ValueError: the documents hold less than one sample.
    """

    def __init__(
        self,
        dataset: IndexedDataset,
        documents: slice,
        seq_length: int,
        seed: int,
        vocab_size: int | None = None,
        cache: IndexCache | None = None,
    ) -> None:
        first, last, _ = documents.indices(len(dataset.document_bounds) - 1)
        self._dataset = dataset
        self._documents = (first, last)
        self._bounds = dataset.document_bounds[first : last + 1]
        self._seq_length = seq_length
        self._seed = seed
        self._vocab_size = vocab_size
        self._cache = cache or IndexCache(None)
        self.prefix = dataset.prefix
        self.num_documents = max(0, last - first)
        self.num_tokens = int(self._bounds[-1] - self._bounds[0]) if last > first else 0
        self.samples_per_epoch = num_samples(self.num_tokens, seq_length)
        if not self.samples_per_epoch:
            raise ValueError(f"{dataset.prefix}: {self.num_tokens} tokens, a sample needs {seq_length + 1}")
        # Documents that are looked up at once: nearly always enough for a sample.
        self._at_once = 2 + (seq_length + 1) * self.num_documents // self.num_tokens
        self._current: tuple[int, EpochIndex] | None = None

    def sample(self, n: int) -> np.ndarray:
        """Sample n >= 0, int64 `[seq_length + 1]`.

        Raises:
            UserError: an id is outside the vocabulary.
        """
        if n < 0:
            raise IndexError(f"sample {n}")
        number, place = divmod(n, self.samples_per_epoch)
        tokens = self._read(self._epoch(number), place)
        if self._vocab_size is not None and ((low := tokens.min()) < 0 or tokens.max() >= self._vocab_size):
            raise UserError(
                f"{self.prefix}: sample {n} holds token id {low if low < 0 else tokens.max()}, outside the vocabulary "
                f"of {self._vocab_size}; make the dataset again with the run's tokenizer"
            )
        return tokens

    def parts(self, n: int) -> list[Part]:
        """This one dataset, and that it gives all of the first n samples."""
        return [Part(self.prefix, 1.0, self.num_documents, self.num_tokens, self.samples_per_epoch, n)]

    def prepare(self, begin: int, end: int) -> None:
        """Build what the cache lacks for samples `begin` to `end - 1`; the order of `begin` is at hand afterwards."""
        first, last = begin // self.samples_per_epoch, max(begin, end - 1) // self.samples_per_epoch
        if self._cache.keeps(self._arrays()):
            for number in range(last, first, -1):
                self._epoch(number)
        self._epoch(first)

    def _epoch(self, number: int) -> EpochIndex:
        if self._current is None or self._current[0] != number:
            self._current = None  # not two in memory
            arrays = self._cache.get(
                f"the sample order of {self.prefix}, epoch {number + 1} "
                f"({self.num_documents:,} documents, {self.samples_per_epoch:,} samples)",
                lambda: ["epoch", self._dataset.index_sha256, *self._documents, self._seq_length, self._seed, number],
                self._arrays(),
                lambda tell: epoch_index(self._bounds, self._seq_length, self._seed, number, tell),
            )
            self._current = number, EpochIndex(*arrays)
        return self._current[1]

    def _arrays(self) -> list[Array]:
        documents, samples, tokens = self.num_documents, self.samples_per_epoch, self.num_tokens
        return [
            Array("documents", documents, index_type(documents), documents),
            Array("places", samples, index_type(documents), documents),
            Array("offsets", samples, index_type(tokens), tokens),
        ]

    def _read(self, epoch: EpochIndex, n: int) -> np.ndarray:
        """The tokens of sample n of an epoch, from one document after the other."""
        place, offset, missing = int(epoch.places[n]), int(epoch.offsets[n]), self._seq_length + 1
        starts: list[int] = []
        lengths: list[int] = []
        while missing > 0:
            documents = epoch.documents[place : place + self._at_once].astype(np.int64)
            place += len(documents)
            ends = self._bounds[documents + 1].tolist()
            for start, end in zip(self._bounds[documents].tolist(), ends, strict=True):
                starts.append(start + offset)
                lengths.append(min(end - start - offset, missing))
                missing -= lengths[-1]
                offset = 0
                if missing == 0:
                    break
        return self._dataset.gather(starts, lengths).astype(np.int64)
