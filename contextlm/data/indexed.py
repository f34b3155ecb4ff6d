"""Reads a dataset in Megatron's format: `PREFIX.bin` (tokens) and `PREFIX.idx` (where each sequence lies).

Opening checks the two files against their header and each other, so damage is a message before training
and not a crash inside it. The layout is in `indexed_format.py`; `dataset_checks.py` compares a dataset with
the run's tokenizer; `samples.py` cuts samples from it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from contextlm.data import indexed_format as layout
from contextlm.data.index_cache import Array, IndexCache
from contextlm.errors import UserError

_CHECKED_AT_ONCE = 1 << 22


class DataLost(OSError):
    """A file of a dataset that was there when it was opened is not, or not whole."""


class IndexedDataset:
    """Random access to the tokens of one dataset; its index is mapped, its tokens are read when they are asked for.

    Args:
        prefix: path without `.bin`.
        cache: where what follows from a large index is kept; in memory if not given.

    Attributes:
        prefix: path without `.bin`.
        dtype: type of the ids in the `.bin` file.
        lengths: tokens of each sequence, int32 `[sequences]`.
        document_starts: first sequence of each document, then the number of sequences; int64
            `[documents + 1]`.
        num_tokens: tokens in all.

    Raises:
        UserError: a file is missing, truncated, damaged, unreadable, or not in this format.
    """

    def __init__(self, prefix: str | Path, cache: IndexCache | None = None) -> None:
        self.prefix = str(prefix)
        self._cache = cache or IndexCache(None)
        _require_files(self.prefix)
        try:
            self._open()
        except OSError as error:
            raise UserError(
                f"--data-path {self.prefix}: {error.filename or self.prefix} cannot be read: {error.strerror}; "
                "check the permissions of the file and of its folder"
            ) from None

    def _open(self) -> None:
        self.dtype, num_sequences, num_documents = _read_header(self.prefix)
        index = np.memmap(f"{self.prefix}.idx", dtype=np.uint8, mode="r")
        first, second = layout.HEADER.size + 4 * num_sequences, layout.HEADER.size + 12 * num_sequences
        self.lengths = index[layout.HEADER.size : first].view("<i4")
        self.document_starts = index[second:].view("<i8")
        self.num_tokens = self._checked_tokens(index[first:second].view("<i8"))
        self.bin_bytes = self.num_tokens * self.dtype.itemsize
        found = Path(f"{self.prefix}.bin").stat().st_size
        if found != self.bin_bytes:
            state = "truncated" if found < self.bin_bytes else "longer than its index says"
            raise UserError(
                f"{self.prefix}.bin is {state}: {self.bin_bytes} bytes expected, {found} found; "
                "copy both files again or run tools/preprocess_data.py again"
            )
        # Read, not mapped: a map of a file that someone truncates ends the process with SIGBUS, without a word.
        self._tokens = open(f"{self.prefix}.bin", "rb", buffering=0)  # noqa: SIM115 - open as long as the dataset

    def _checked_tokens(self, offsets: np.ndarray) -> int:
        """The tokens of all sequences, which must lie one after the other, in documents in order.

        A piece at a time: the tables of a large dataset are gigabytes.
        """
        starts, num_tokens = self.document_starts, 0
        sound = starts[0] == 0 and starts[-1] == len(self.lengths)
        for begin in range(0, len(starts), _CHECKED_AT_ONCE):
            sound = sound and not np.any(np.diff(starts[begin : begin + _CHECKED_AT_ONCE + 1]) < 0)
        for begin in range(0, len(self.lengths), _CHECKED_AT_ONCE):
            lengths = self.lengths[begin : begin + _CHECKED_AT_ONCE]
            ends = num_tokens + np.cumsum(lengths, dtype=np.int64)
            their_offsets = offsets[begin : begin + _CHECKED_AT_ONCE]
            sound = (
                sound and lengths.min() >= 0 and np.array_equal(their_offsets, (ends - lengths) * self.dtype.itemsize)
            )
            num_tokens = int(ends[-1])
        if not sound:
            raise UserError(f"{self.prefix}.idx is damaged: its tables contradict each other; make the dataset again")
        return num_tokens

    @cached_property
    def document_bounds(self) -> np.ndarray:
        """Where the documents that hold tokens begin, then `num_tokens`; int64 `[documents + 1]`.

        Document i is the tokens `[bounds[i], bounds[i + 1])`. Empty documents are left out: nothing can be
        drawn from them, and Megatron does not count them when it splits a dataset.
        """
        most = Array("bounds", len(self.document_starts), np.dtype("<i8"), self.num_tokens + 1, exact=False)
        about = f"the document bounds of {self.prefix}"
        return self._cache.get(about, lambda: ["bounds", self.index_sha256], [most], lambda _: [self._find_bounds()])[0]

    def _find_bounds(self) -> np.ndarray:
        sequence_starts = np.zeros(len(self.lengths) + 1, np.int64)
        np.cumsum(self.lengths, out=sequence_starts[1:])
        bounds = sequence_starts[self.document_starts]
        return bounds[np.append(True, bounds[1:] > bounds[:-1])]

    @cached_property
    def index_sha256(self) -> str:
        """sha256 of the `.idx` file (hex)."""
        return file_sha256(f"{self.prefix}.idx")

    @cached_property
    def _sequence_starts(self) -> np.ndarray:
        return np.cumsum(self.lengths, dtype=np.int64) - self.lengths

    def get(self, sequence: int, offset: int = 0, length: int | None = None) -> np.ndarray:
        """Tokens `[offset, offset + length)` of one sequence; a copy, so it outlives the dataset.

        Raises:
            IndexError: the range is not inside the sequence.
        """
        size = int(self.lengths[sequence])
        length = size - offset if length is None else length
        if offset < 0 or length < 0 or offset + length > size:
            raise IndexError(f"[{offset}, {offset + length}) of sequence {sequence}, which has {size} tokens")
        return self.tokens(int(self._sequence_starts[sequence]) + offset, length)

    def tokens(self, start: int, length: int) -> np.ndarray:
        """`length` tokens from position `start` of the whole dataset, fewer at its end.

        Raises:
            DataLost: the file cannot be read any more.
        """
        return self.gather([start], [max(0, min(length, self.num_tokens - start))])

    def gather(self, starts: Sequence[int], lengths: Sequence[int]) -> np.ndarray:
        """The tokens of several spans of the whole dataset, one after the other.

        Raises:
            DataLost: the file cannot be read any more.
        """
        size, descriptor = self.dtype.itemsize, self._tokens.fileno()
        tokens = np.empty(sum(lengths), self.dtype)
        view, done = tokens.data.cast("B") if tokens.size else memoryview(b""), 0
        for start, length in zip(starts, lengths, strict=True):
            end, position = done + length * size, start * size
            while done < end:  # one call reads 2 GiB at most
                try:
                    count = os.preadv(descriptor, (view[done:end],), position)
                except OSError as error:
                    raise DataLost(f"{self.prefix}.bin cannot be read any more: {error.strerror}") from error
                if count == 0:
                    raise DataLost(f"{self.prefix}.bin has become shorter than the {self.bin_bytes} bytes it had")
                done += count
                position += count
        return tokens


def file_sha256(path: str | Path) -> str:
    """sha256 of a file (hex), read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _require_files(prefix: str) -> None:
    missing = [prefix + suffix for suffix in (".bin", ".idx") if not Path(prefix + suffix).is_file()]
    if not missing:
        return
    folder = Path(prefix).parent
    nearby = sorted(str(path.with_suffix("")) for path in folder.glob("*.idx")) if folder.is_dir() else []
    if not folder.is_dir():
        remedy = f"there is no folder {folder}"
    elif prefix.endswith((".bin", ".idx")):
        remedy = f"give the prefix without its ending: {prefix[:-4]}"
    elif nearby:
        remedy = "datasets in that folder: " + ", ".join(nearby[:8]) + (", ..." if len(nearby) > 8 else "")
    else:
        remedy = "there is no dataset in that folder; tools/preprocess_data.py makes one"
    raise UserError(f"--data-path {prefix}: no such dataset ({', '.join(missing)} missing); {remedy}")


def _read_header(prefix: str) -> tuple[np.dtype, int, int]:
    """Token type, sequences and documents, after the size of the `.idx` file agrees with them."""
    path = f"{prefix}.idx"
    found = Path(path).stat().st_size
    with open(path, "rb") as stream:
        header = stream.read(layout.HEADER.size)
    if not header:
        raise UserError(f"{path} is empty; copy it again or run tools/preprocess_data.py again")
    if not header.startswith(layout.MAGIC):
        raise UserError(f"{path} is not a Megatron index: it does not begin with MMIDIDX")
    if len(header) < layout.HEADER.size:
        raise UserError(f"{path} is truncated: {layout.HEADER.size} bytes of header expected, {found} found")
    _, version, code, num_sequences, starts = layout.HEADER.unpack(header)
    if version != layout.VERSION:
        raise UserError(f"{path}: version {version}; only version {layout.VERSION} is known")
    if code not in layout.TOKEN_TYPES:
        raise UserError(f"{path}: type code {code} is no integer type, so these are no token ids")
    expected = layout.index_size(num_sequences, starts - 1)
    if starts < 1 or found != expected:
        state = "truncated" if found < expected else "damaged"
        raise UserError(f"{path} is {state}: {expected} bytes expected, {found} found; make the dataset again")
    return layout.TOKEN_TYPES[code], num_sequences, starts - 1
