"""Writes a dataset as Megatron-LM does, byte for byte: `PREFIX.bin` and `PREFIX.idx`.

Tokens stream to the disk; what stays in memory is 4 bytes a sequence and 8 a document. The layout is in
`indexed_format.py`, the reader in `indexed.py`.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from contextlm.data import indexed_format as layout
from contextlm.errors import UserError

MAX_SEQUENCE_LENGTH = 2**31 - 1


class IndexedWriter:
    """A context manager; the two files get their names when its body ends without an exception.

    Args:
        prefix: path without `.bin`; the folder is made if needed.
        vocab_size: chooses the type of the ids and bounds them.
    """

    def __init__(self, prefix: str | Path, vocab_size: int) -> None:
        self.prefix = str(prefix)
        self.vocab_size = vocab_size
        self.dtype = layout.token_dtype(vocab_size)
        self.num_tokens = 0
        self.max_token_id = -1
        self._lengths = array("i")
        self._document_starts = array("q", [0])
        self._stream = None

    @property
    def num_documents(self) -> int:
        """Documents so far, empty ones included."""
        return len(self._document_starts) - 1

    def __enter__(self) -> IndexedWriter:
        Path(self.prefix).parent.mkdir(parents=True, exist_ok=True)
        self._stream = open(f"{self.prefix}.bin.part", "wb", buffering=1 << 20)
        return self

    def __exit__(self, exception: type[BaseException] | None, *_: object) -> None:
        try:
            if exception is None:
                self._finish()
        finally:
            self._stream.close()
            for suffix in (".bin.part", ".idx.part"):
                Path(self.prefix + suffix).unlink(missing_ok=True)

    def add_document(self, ids: Sequence[int] | np.ndarray, lengths: Sequence[int] | None = None) -> None:
        """Append one document; an empty one repeats a document start, as in Megatron.

        Args:
            ids: its tokens.
            lengths: tokens of each of its sequences; one sequence of all tokens if not given.
        """
        lengths = ([len(ids)] if len(ids) else []) if lengths is None else lengths
        self.add_documents(np.asarray(ids, dtype=np.int64), np.asarray(lengths, np.int64), np.asarray([len(lengths)]))

    def add_documents(self, ids: np.ndarray, lengths: np.ndarray, sequences: np.ndarray) -> None:
        """Append several documents.

        Args:
            ids: tokens of all documents, `[tokens]`, an integer type that is not narrower than the ids.
            lengths: tokens of each sequence, `[sequences]`.
            sequences: number of sequences of each document, `[documents]`.

        Raises:
            UserError: an id outside the vocabulary, a sequence too long for the format.
            ValueError: the three do not fit together.
        """
        if lengths.sum() != len(ids) or sequences.sum() != len(lengths):
            raise ValueError(f"{len(ids)} tokens, lengths {lengths.sum()}, {len(lengths)} sequences, {sequences.sum()}")
        if len(ids):
            low, high = int(ids.min()), int(ids.max())
            if low < 0 or high >= self.vocab_size:
                wrong = low if low < 0 else high
                raise UserError(f"{self.prefix}: token id {wrong} is outside the vocabulary of {self.vocab_size}")
            if lengths.max() > MAX_SEQUENCE_LENGTH:
                raise UserError(f"{self.prefix}: a document of {lengths.max()} tokens is too long; split it")
            self.max_token_id = max(self.max_token_id, high)
        self._stream.write(ids.astype(self.dtype, copy=False).tobytes())
        self._document_starts.frombytes((len(self._lengths) + np.cumsum(sequences, dtype=np.int64)).tobytes())
        self._lengths.frombytes(lengths.astype(np.int32).tobytes())
        self.num_tokens += len(ids)

    def _finish(self) -> None:
        _sync(self._stream)
        with open(f"{self.prefix}.idx.part", "wb") as stream:
            lengths = np.frombuffer(self._lengths, dtype=np.int32)
            starts = np.frombuffer(self._document_starts, dtype=np.int64)
            code = layout.type_code(self.dtype)
            stream.write(layout.HEADER.pack(layout.MAGIC, layout.VERSION, code, len(lengths), len(starts)))
            stream.write(lengths.astype("<i4", copy=False).tobytes())
            offsets = np.cumsum(lengths, dtype=np.int64) - lengths
            stream.write((offsets * self.dtype.itemsize).astype("<i8", copy=False).tobytes())
            stream.write(starts.astype("<i8", copy=False).tobytes())
            _sync(stream)
        # What an earlier run left must not pair up with the new tokens if we are killed right here.
        for suffix in (".idx", ".json"):
            Path(self.prefix + suffix).unlink(missing_ok=True)
        for suffix in (".bin", ".idx"):
            os.replace(f"{self.prefix}{suffix}.part", self.prefix + suffix)


def _sync(stream) -> None:
    stream.flush()
    os.fsync(stream.fileno())
