"""Turns documents into token arrays: the part of preprocessing that runs in worker processes.

Read next: `preprocessing.py`, which feeds it and writes what it gives back.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from contextlm.config.schema import DataConfig
from contextlm.data.indexed_format import token_dtype
from contextlm.data.sources.batches import Batch
from contextlm.data.sources.documents import Reject
from contextlm.data.tokenizers import build_tokenizer
from contextlm.errors import UserError


@dataclass(frozen=True)
class EncodingSettings:
    """What decides the tokens of a document: the tokenizer, the keys, whether EOD ends it."""

    data: DataConfig
    json_keys: tuple[str, ...]
    append_eod: bool


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
    """One batch of documents: for each key its texts, what was left out, the bytes read."""

    texts: list[EncodedTexts]
    rejects: list[Reject]
    num_bytes: int


def encode_batch(settings: EncodingSettings, batch: Batch) -> EncodedBatch:
    """Encode the documents of a batch, which must have been read with the keys of `settings`."""
    encoder = _encoder(settings)
    documents: list[list[_Encoded]] = []
    rejects: list[Reject] = []
    for item in batch.documents():
        if isinstance(item, Reject):
            rejects.append(item)
            continue
        try:
            documents.append([encoder.encode(sentences) for sentences in item.texts])
        except UserError as error:  # The tokenizer insists on a control token for this text.
            rejects.append(item.place.reject(str(error)))
    texts = [encoder.join([document[key] for document in documents]) for key in range(len(settings.json_keys))]
    return EncodedBatch(texts, rejects, batch.num_bytes)


@lru_cache(maxsize=1)
def _encoder(settings: EncodingSettings) -> _Encoder:
    """One tokenizer per worker process, built when its first batch arrives."""
    return _Encoder(settings)


class _Encoded(NamedTuple):
    sentences: list[list[int]]
    text_bytes: int


class _Encoder:
    def __init__(self, settings: EncodingSettings) -> None:
        self._settings = settings
        self._tokenizer = build_tokenizer(settings.data)
        self._dtype = token_dtype(self._tokenizer.vocab_size)

    def encode(self, sentences: list[str]) -> _Encoded:
        """The text of one key of one document."""
        encoded = [ids for sentence in sentences if (ids := self._tokenizer.encode(sentence))]
        if encoded and self._settings.append_eod:
            encoded[-1] = [*encoded[-1], self._tokenizer.eod]
        return _Encoded(encoded, sum(len(sentence.encode()) for sentence in sentences))

    def join(self, documents: list[_Encoded]) -> EncodedTexts:
        """Several documents as flat arrays, ready to be written."""
        sentences = [ids for document in documents for ids in document.sentences]
        flat = [np.asarray(ids, dtype=self._dtype) for ids in sentences]
        return EncodedTexts(
            np.concatenate(flat) if flat else np.empty(0, self._dtype),
            np.array([len(ids) for ids in sentences], dtype=np.int64),
            np.array([len(document.sentences) for document in documents], dtype=np.int64),
            sum(document.text_bytes for document in documents),
        )
