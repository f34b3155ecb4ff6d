"""Reads a dataset in Megatron's format: `PREFIX.bin` (tokens) and `PREFIX.idx` (where each sequence lies).

Opening checks the two files against their header and each other, so damage is a message before training
and not a crash inside it. The layout is in `indexed_format.py`; `dataset_checks.py` compares a dataset with
the run's tokenizer; `samples.py` cuts samples from it.
"""

from __future__ import annotations

import hashlib
import os
from functools import cached_property
from pathlib import Path

import numpy as np

from contextlm.data import indexed_format as layout
from contextlm.data.indexed_writer import IndexedWriter
from contextlm.errors import UserError

__all__ = ["IndexedDataset", "IndexedWriter"]


class DataLost(OSError):
    """A file of a dataset that was there when it was opened is not, or not whole."""


class IndexedDataset:
    """Random access to the tokens of one dataset; its index is mapped, its tokens are read when they are asked for.

    Attributes:
        prefix: path without `.bin`.
        dtype: type of the ids in the `.bin` file.
        lengths: tokens of each sequence, int32 `[sequences]`.
        document_starts: first sequence of each document, then the number of sequences; int64
            `[documents + 1]`.
        num_tokens: tokens in all.

    Raises:
        UserError: a file is missing, truncated, damaged, or not in this format.
    """

    def __init__(self, prefix: str | Path) -> None:
        self.prefix = str(prefix)
        _require_files(self.prefix)
        self.dtype, num_sequences, num_documents = _read_header(self.prefix)
        index = np.memmap(f"{self.prefix}.idx", dtype=np.uint8, mode="r")
        first, second = layout.HEADER.size + 4 * num_sequences, layout.HEADER.size + 12 * num_sequences
        self.lengths = index[layout.HEADER.size : first].view("<i4")
        self.document_starts = index[second:].view("<i8")
        self._check_index(index[first:second].view("<i8"))
        self.num_tokens = int(self.lengths.sum(dtype=np.int64))
        self.bin_bytes = self.num_tokens * self.dtype.itemsize
        found = Path(f"{self.prefix}.bin").stat().st_size
        if found < self.bin_bytes:
            raise UserError(
                f"{self.prefix}.bin is truncated: {self.bin_bytes} bytes expected, {found} found; "
                "copy it again or run tools/preprocess_data.py again"
            )
        # Read, not mapped: a map of a file that someone truncates ends the process with SIGBUS, without a word.
        self._tokens = open(f"{self.prefix}.bin", "rb", buffering=0)  # noqa: SIM115 - open as long as the dataset

    def _check_index(self, offsets: np.ndarray) -> None:
        """The three tables must describe sequences that lie one after the other, in documents in order."""
        ends = np.cumsum(self.lengths, dtype=np.int64)
        starts = self.document_starts
        sound = (
            not np.any(self.lengths < 0)
            and np.array_equal(offsets, (ends - self.lengths) * self.dtype.itemsize)
            and starts[0] == 0
            and starts[-1] == len(self.lengths)
            and not np.any(np.diff(starts) < 0)
        )
        if not sound:
            raise UserError(f"{self.prefix}.idx is damaged: its tables contradict each other; make the dataset again")

    @cached_property
    def document_bounds(self) -> np.ndarray:
        """Where the documents that hold tokens begin, then `num_tokens`; int64 `[documents + 1]`.

        Document i is the tokens `[bounds[i], bounds[i + 1])`. Empty documents are left out: nothing can be
        drawn from them, and Megatron does not count them when it splits a dataset.
        """
        sequence_starts = np.concatenate(([0], np.cumsum(self.lengths, dtype=np.int64)))
        return np.unique(sequence_starts[self.document_starts])

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
        size = self.dtype.itemsize
        tokens = np.empty(max(0, min(length, self.num_tokens - start)), self.dtype)
        view, done = memoryview(tokens).cast("B") if tokens.size else memoryview(b""), 0
        while done < len(view):  # one call reads 2 GiB at most
            try:
                count = os.preadv(self._tokens.fileno(), [view[done:]], start * size + done)
            except OSError as error:
                raise DataLost(f"{self.prefix}.bin cannot be read any more: {error.strerror}") from error
            if count == 0:
                raise DataLost(f"{self.prefix}.bin has become shorter than the {self.bin_bytes} bytes it had")
            done += count
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
