"""Turns lines of JSON into token arrays: the part of preprocessing that runs in worker processes.

Read next: `preprocessing.py`, which feeds it and writes what it gives back.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from contextlm.config.schema import DataConfig
from contextlm.data.indexed_format import token_dtype
from contextlm.data.jsonl import LineBatch
from contextlm.data.tokenizers import build_tokenizer
from contextlm.errors import UserError


@dataclass(frozen=True)
class EncodingSettings:
    """What decides the tokens of a document: the tokenizer, the keys, whether EOD ends it."""

    data: DataConfig
    json_keys: tuple[str, ...]
    append_eod: bool


class Reject(NamedTuple):
    """A line that could not be used, and why."""

    path: str
    line: int
    reason: str


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
    """One batch of lines: for each key its texts, the lines left out, the bytes read."""

    texts: list[EncodedTexts]
    rejects: list[Reject]
    num_bytes: int


class UnusableLine(Exception):
    """A line that is no document; its text is the reason."""


def encode_batch(settings: EncodingSettings, batch: LineBatch) -> EncodedBatch:
    """Encode the lines of a batch. Blank lines are no documents and are passed over."""
    encoder = _encoder(settings)
    documents: list[list[_Encoded]] = []
    rejects: list[Reject] = []
    for number, line in enumerate(batch.lines, batch.first_line):
        if line.isspace():
            continue
        try:
            documents.append(encoder.encode_line(line))
        except UnusableLine as error:
            rejects.append(Reject(batch.path, number, str(error)))
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

    def encode_line(self, line: bytes) -> list[_Encoded]:
        """The document of a line, once for each key."""
        record = _parse(line)
        texts = [_sentences(record, key) for key in self._settings.json_keys]
        return [self._encode(sentences) for sentences in texts]

    def _encode(self, sentences: list[str]) -> _Encoded:
        try:
            encoded = [ids for sentence in sentences if (ids := self._tokenizer.encode(sentence))]
        except UserError as error:
            raise UnusableLine(str(error)) from None
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


def texts_of_line(line: bytes, key: str) -> list[str]:
    """The text of one key of a line of JSON, as a list; several where it is a list of sentences.

    Raises:
        UnusableLine: the line is no JSON object, or has no such text.
    """
    return _sentences(_parse(line), key)


def _parse(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UnusableLine(f"not valid UTF-8 (byte {error.start} of the line)") from None
    except json.JSONDecodeError as error:
        raise UnusableLine(f"not valid JSON ({error.msg} at column {error.colno})") from None
    except (ValueError, RecursionError) as error:
        raise UnusableLine(f"not readable JSON ({error})") from None
    if not isinstance(record, dict):
        raise UnusableLine(f"a JSON object is expected, not {_kind(record)}")
    return record


def _sentences(record: dict[str, Any], key: str) -> list[str]:
    if key not in record:
        raise UnusableLine(f"no key {key!r}; keys of this line: {', '.join(map(repr, record)) or 'none'}")
    value = record[key]
    sentences = value if isinstance(value, list) else [value]
    wrong = [sentence for sentence in sentences if not isinstance(sentence, str)]
    if wrong:
        raise UnusableLine(f"{key!r} is {_kind(wrong[0])}, not text")
    try:
        "".join(sentences).encode()
    except UnicodeEncodeError:
        raise UnusableLine(f"{key!r} holds a lone surrogate, which is not valid Unicode") from None
    return sentences


def _kind(value: Any) -> str:
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
        str: "text",
    }
    return names.get(type(value), "null")
