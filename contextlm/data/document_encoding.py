"""Turns documents into token arrays: the part of preprocessing that runs in worker processes.

Read next: `encoding_pool.py`, which runs it there, and `preprocessing.py`, which writes what it gives back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from contextlm.config.schema import DataConfig
from contextlm.data.indexed_format import token_dtype
from contextlm.data.sources.batches import Batch
from contextlm.data.sources.documents import Document, Reject
from contextlm.data.tokenizer_interface import Tokenizer
from contextlm.data.tokenizers import build_tokenizer
from contextlm.errors import UserError


@dataclass(frozen=True)
class EncodingSettings:
    """What decides the tokens of a document: the tokenizer (with --vocab-size), the keys, whether EOD ends it."""

    data: DataConfig
    json_keys: tuple[str, ...]
    append_eod: bool
    vocab_size: int | None = None


class EncodedTexts(NamedTuple):
    """The texts of one key in one batch.

    Attributes:
        ids: tokens of all documents, `[tokens]`.
        lengths: tokens of each sequence, `[sequences]`; a text is one sequence, a list of sentences several.
        sequences: sequences of each document, `[documents]`; 0 where the text is empty.
        text_bytes: UTF-8 bytes of the texts.
    """

    ids: np.ndarray
    lengths: np.ndarray
    sequences: np.ndarray
    text_bytes: int


class EncodedBatch(NamedTuple):
    """One batch of documents.

    Attributes:
        texts: for each key its texts.
        rejects: what was left out.
        num_bytes: bytes of the files that were read for it.
        notices: what the tokenizer has to say about the libraries that it does not use.
    """

    texts: list[EncodedTexts]
    rejects: list[Reject]
    num_bytes: int
    notices: tuple[str, ...] = ()


def encode_batch(settings: EncodingSettings, batch: Batch) -> EncodedBatch:
    """Encode the documents of a batch, which must have been read with the keys of `settings`."""
    return _encoder(settings).encode(batch)


def tokenizer_of(settings: EncodingSettings) -> Tokenizer:
    """The tokenizer that `encode_batch` uses in this process."""
    return _encoder(settings).tokenizer


@lru_cache(maxsize=1)
def _encoder(settings: EncodingSettings) -> _Encoder:
    """One tokenizer per process."""
    return _Encoder(settings)


class _Encoder:
    def __init__(self, settings: EncodingSettings) -> None:
        self._keys = range(len(settings.json_keys))
        self.tokenizer = build_tokenizer(settings.data, settings.vocab_size)
        self._eod = self.tokenizer.eod if settings.append_eod else None
        self._dtype = token_dtype(self.tokenizer.vocab_size)

    def encode(self, batch: Batch) -> EncodedBatch:
        """All documents of a batch."""
        items = list(batch.documents())
        try:
            texts = self._encode(items)
        except UserError:  # The tokenizer insists on a control token for some text.
            items = [self._judged(item) for item in items]
            texts = self._encode(items)
        rejects = [item for item in items if isinstance(item, Reject)]
        return EncodedBatch(texts, rejects, batch.num_bytes, tuple(self.tokenizer.batch_encoder.notices))

    def _encode(self, items: Sequence[Document | Reject]) -> list[EncodedTexts]:
        documents = [item for item in items if isinstance(item, Document)]
        return [self._encode_key([document.texts[key] for document in documents]) for key in self._keys]

    def _judged(self, item: Document | Reject) -> Document | Reject:
        """The item, or a reject in place of a document that cannot be encoded."""
        try:
            self._encode([item])
        except UserError as error:
            assert isinstance(item, Document)  # of a reject nothing is encoded
            return item.place.reject(str(error))
        return item

    def _encode_key(self, texts: list[list[str]]) -> EncodedTexts:
        """The texts of one key, each a list of sentences."""
        sentences = [sentence for text in texts for sentence in text]
        ids, lengths = self.tokenizer.encode_batch(sentences)
        ids = ids.astype(self._dtype, copy=False)
        owners = np.repeat(np.arange(len(texts)), [len(text) for text in texts])[lengths > 0]
        lengths = lengths[lengths > 0]  # A sentence without tokens is no sequence.
        sequences = np.bincount(owners, minlength=len(texts))
        if self._eod is not None and len(lengths):
            last = np.cumsum(sequences)[sequences > 0] - 1  # of each document, among the sequences
            ids = np.insert(ids, np.cumsum(lengths)[last], self._eod)
            lengths[last] += 1
        return EncodedTexts(ids, lengths, sequences, sum(map(_num_bytes, sentences)))


def _num_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
