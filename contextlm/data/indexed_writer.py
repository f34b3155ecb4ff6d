"""Writes a dataset as Megatron-LM does, byte for byte: `PREFIX.bin` and `PREFIX.idx`, and the sidecar `PREFIX.json`.

Everything streams to the disk, the index too: what stays in memory does not grow with the dataset. The layout is
in `indexed_format.py`, the reader in `indexed.py`, the sidecar in `sidecar.py`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from contextlm.data import indexed_format as layout
from contextlm.data.sidecar import Origin, Sidecar, sampled_sha256
from contextlm.errors import UserError

if TYPE_CHECKING:
    from contextlm.data.indexed import IndexedDataset

MAX_SEQUENCE_LENGTH = 2**31 - 1
BLOCK = 1 << 18  # numbers that are in memory at once while something is copied


class IndexedWriter:
    """A context manager; the files get their names when its body ends without an exception, `.idx` last.

    So where there is a `.bin` with an `.idx`, it is complete, and its sidecar is there.

    Args:
        prefix: path without `.bin`; the folder is made if needed.
        vocab_size: bounds the ids and chooses their type.
        dtype: type of the ids, if another one than Megatron would choose.

    Attributes:
        origin: where the tokens come from, for the sidecar; set it before the body ends. None: no sidecar.

    Raises:
        UserError: the files cannot be written, or another process is writing them.
    """

    def __init__(self, prefix: str | Path, vocab_size: int, dtype: np.dtype | None = None) -> None:
        self.prefix = str(prefix)
        self.vocab_size = vocab_size
        self.dtype = layout.token_dtype(vocab_size) if dtype is None else dtype
        self.num_tokens = 0
        self.num_sequences = 0
        self.num_documents = 0  # empty ones included
        self.max_token_id = -1
        self.origin: Origin | None = None
        self._finished = False
        self._streams: list[IO[bytes]] = []

    def __enter__(self) -> IndexedWriter:
        folder = Path(self.prefix).parent
        try:
            with self._writing():
                folder.mkdir(parents=True, exist_ok=True)
                self._tokens = self._keep(_open_alone(f"{self.prefix}.bin.part"))
                # Two tables of the index, until the third is known. Without names: a kill leaves nothing of them.
                self._lengths = self._keep(tempfile.TemporaryFile(dir=folder))
                self._starts = self._keep(tempfile.TemporaryFile(dir=folder))
            self._add_starts(np.zeros(1, np.int64))
        except UserError:
            self._give_up()
            raise
        return self

    def __exit__(self, exception: type[BaseException] | None, *_: object) -> None:
        try:
            if exception is None:
                self.finish()
                with self._writing():
                    self._rename()
                self._close()
        finally:
            self._give_up()

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
            UserError: an id outside the vocabulary, a sequence too long for the format, no room on the disk.
            ValueError: the three do not fit together.
        """
        if lengths.sum() != len(ids) or sequences.sum() != len(lengths):
            raise ValueError(f"{len(ids)} tokens, lengths {lengths.sum()}, {len(lengths)} sequences, {sequences.sum()}")
        if len(lengths) and lengths.max() > MAX_SEQUENCE_LENGTH:
            raise UserError(f"{self.prefix}: a document of {lengths.max()} tokens is too long; split it")
        self._add_tokens(ids)
        self._add_starts(self.num_sequences + np.cumsum(sequences, dtype=np.int64))
        self._add_lengths(lengths)
        self.num_documents += len(sequences)

    def add_dataset(self, dataset: IndexedDataset) -> None:
        """Append all documents of a dataset whose ids have our type."""
        assert dataset.dtype == self.dtype, (dataset.dtype, self.dtype)
        for start in range(0, dataset.num_tokens, BLOCK):
            self._add_tokens(dataset.tokens(start, BLOCK))
        for start in range(1, len(dataset.document_starts), BLOCK):
            self._add_starts(self.num_sequences + dataset.document_starts[start : start + BLOCK])
        for start in range(0, len(dataset.lengths), BLOCK):
            self._add_lengths(dataset.lengths[start : start + BLOCK])
        self.num_documents += len(dataset.document_starts) - 1

    def finish(self) -> None:
        """Bring all to the disk under temporary names; what is left are renames, which need no room.

        Called at the end of the body by who writes several datasets that must appear together.
        """
        if self._finished:
            return
        with self._writing():
            _sync(self._tokens)
            digest = self._write_index()
            if self.origin is not None:
                with open(f"{self.prefix}.json.part", "wb") as stream:
                    stream.write(self._sidecar(self.origin, digest).to_json())
                    _sync(stream)
        self._finished = True

    def _add_tokens(self, ids: np.ndarray) -> None:
        if not len(ids):
            return
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= self.vocab_size:
            wrong = low if low < 0 else high
            raise UserError(f"{self.prefix}: token id {wrong} is outside the vocabulary of {self.vocab_size}")
        with self._writing():
            self._tokens.write(ids.astype(self.dtype, copy=False).tobytes())
        self.max_token_id = max(self.max_token_id, high)
        self.num_tokens += len(ids)

    def _add_lengths(self, lengths: np.ndarray) -> None:
        with self._writing():
            self._lengths.write(lengths.astype("<i4").tobytes())
        self.num_sequences += len(lengths)

    def _add_starts(self, starts: np.ndarray) -> None:
        with self._writing():
            self._starts.write(starts.astype("<i8").tobytes())

    def _write_index(self) -> str:
        """Write `.idx.part`; returns its sha256 (hex)."""
        digest = hashlib.sha256()
        with open(f"{self.prefix}.idx.part", "wb") as stream:
            for block in self._index_blocks():
                digest.update(block)
                stream.write(block)
            _sync(stream)
        return digest.hexdigest()

    def _index_blocks(self) -> Iterator[bytes]:
        code = layout.type_code(self.dtype)
        yield layout.HEADER.pack(layout.MAGIC, layout.VERSION, code, self.num_sequences, self.num_documents + 1)
        yield from _blocks(self._lengths)
        end = 0
        for block in _blocks(self._lengths):
            sizes = np.frombuffer(block, "<i4").astype(np.int64) * self.dtype.itemsize
            ends = end + np.cumsum(sizes)
            yield (ends - sizes).astype("<i8", copy=False).tobytes()
            end = int(ends[-1])
        yield from _blocks(self._starts)

    def _sidecar(self, origin: Origin, idx_sha256: str) -> Sidecar:
        return Sidecar(
            **vars(origin),
            documents=self.num_documents,
            tokens=self.num_tokens,
            max_token_id=self.max_token_id,
            bin_bytes=self.num_tokens * self.dtype.itemsize,
            idx_sha256=idx_sha256,
            bin_sampled_sha256=sampled_sha256(f"{self.prefix}.bin.part"),
        )

    def _rename(self) -> None:
        # What an earlier run left must not pair up with the new tokens if we are killed right here.
        for suffix in (".idx", ".json"):
            Path(self.prefix + suffix).unlink(missing_ok=True)
        for suffix in (".bin", ".json", ".idx"):
            if suffix != ".json" or self.origin is not None:
                os.replace(f"{self.prefix}{suffix}.part", self.prefix + suffix)

    def _keep(self, stream: IO[bytes]) -> IO[bytes]:
        self._streams.append(stream)
        return stream

    def _give_up(self) -> None:
        if self._streams:  # none: it is done, or the files are somebody else's
            for suffix in (".bin.part", ".idx.part", ".json.part"):
                with contextlib.suppress(OSError):
                    os.unlink(self.prefix + suffix)
        self._close()

    def _close(self) -> None:
        for stream in self._streams:
            with contextlib.suppress(OSError):  # what could not be written fails again, and is not wanted any more
                stream.close()
        self._streams = []

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
            raise UserError(
                f"--output-prefix: {self.prefix}.bin and .idx cannot be written ({reason}); nothing "
                "has been left there; make room or give another place, and run the same command again"
            ) from error


def _open_alone(path: str) -> IO[bytes]:
    """The file `path`, emptied; while it is open no other process gets it from here, and a kill ends that."""
    while True:
        stream = open(path, "ab", buffering=1 << 20)  # noqa: SIM115 - and not "wb", which would empty it too early
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.close()
            raise UserError(
                f"{path}: another process is writing this dataset; wait for it, or give another --output-prefix"
            ) from None
        except OSError:
            pass  # a file system without locks
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(path), os.fstat(stream.fileno())):
                stream.truncate(0)
                return stream
        stream.close()  # Whoever had it has just renamed it: what we opened is a finished dataset now.


def _blocks(stream: IO[bytes]) -> Iterator[bytes]:
    stream.seek(0)
    while block := stream.read(4 * BLOCK):
        yield block


def _sync(stream: IO[bytes]) -> None:
    stream.flush()
    os.fsync(stream.fileno())
