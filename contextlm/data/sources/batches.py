"""Units as a stream of batches, in order, a few of which fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from contextlm.data.sources.documents import Document, Reject, Unread
from contextlm.data.sources.hub import read_dataset
from contextlm.data.sources.json_lines import Lines, read_lines
from contextlm.data.sources.parquet import read_row_groups
from contextlm.data.sources.plain_text import TextBlocks, WholeText, read_text_blocks, read_whole_text
from contextlm.data.sources.streams import BLOCK_BYTES
from contextlm.data.sources.tables import Rows
from contextlm.data.sources.unit import Unit
from contextlm.errors import UserError

Piece = Lines | WholeText | TextBlocks | Rows | Unread
MOST_PIECES = 1000


class Batch(NamedTuple):
    """Documents that follow each other, not parsed yet; can be sent to another process.

    Attributes:
        pieces: of one file or of several small ones.
        keys: whose texts are wanted.
        num_bytes: bytes of the files that were read for it; over all batches of a unit they add up to its size,
            if that is known.
    """

    pieces: list[Piece]
    keys: tuple[str, ...]
    num_bytes: int

    def documents(self) -> Iterator[Document | Reject]:
        """Parse them, in order."""
        for piece in self.pieces:
            yield from piece.documents(self.keys)


def read_batches(units: Sequence[Unit], keys: Sequence[str], batch_bytes: int = BLOCK_BYTES) -> Iterator[Batch]:
    """All documents of `units` with the texts of `keys`, `batch_bytes` of memory or a little more at a time.

    Raises:
        UserError: the system cannot read a file.
    """
    pieces: list[Piece] = []
    in_memory = num_bytes = 0
    for unit in units:
        of_unit = 0
        try:
            for piece in _pieces(unit, keys):
                pieces.append(piece)
                in_memory += piece.in_memory
                num_bytes += piece.num_bytes
                of_unit += piece.num_bytes
                if in_memory >= batch_bytes or len(pieces) >= MOST_PIECES:
                    yield Batch(pieces, tuple(keys), num_bytes)
                    pieces, in_memory, num_bytes = [], 0, 0
        except OSError as error:
            raise UserError(f"{unit.path}: cannot be read: {error.strerror or error}") from None
        num_bytes += max(0, unit.size - of_unit)  # What lies behind damage.
    if pieces or num_bytes:
        yield Batch(pieces, tuple(keys), num_bytes)


def _pieces(unit: Unit, keys: Sequence[str]) -> Iterator[Piece]:
    if unit.format == "json":
        return read_lines(unit)
    if unit.format == "text":
        return read_whole_text(unit)
    if unit.format == "blocks":
        return read_text_blocks(unit)
    if unit.format == "parquet":
        return read_row_groups(unit, keys)
    return read_dataset(unit, keys)
