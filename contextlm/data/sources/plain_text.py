"""Plain text: a document is a file, or a block of lines between blank lines.

The text is taken as it is, line ends included; only a byte order mark at the beginning of a file is not part of it,
nor is the line end that closes a block.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from contextlm.data.sources.documents import (
    MAX_DOCUMENT_BYTES,
    Document,
    Place,
    Reject,
    Unread,
    Unusable,
)
from contextlm.data.sources.json_lines import read_lines
from contextlm.data.sources.streams import Damaged, read_blocks
from contextlm.data.sources.unit import Unit

TOO_LONG = f"a document of more than {MAX_DOCUMENT_BYTES >> 20} MiB"
_BLANK_LINE = re.compile(rb"^[ \t\r\f\v]*\n", re.MULTILINE)
_BLANK_LINE_OR_END = re.compile(rb"^[ \t\r\f\v]*(?:\n|\Z)", re.MULTILINE)


class WholeText(NamedTuple):
    """A file that is one document."""

    place: Place
    raw: bytes
    num_bytes: int

    @property
    def in_memory(self) -> int:
        """Bytes."""
        return len(self.raw)

    def documents(self, keys: Sequence[str]) -> Iterator[Document | Reject]:
        """The document, or a reject."""
        yield _document(self.place, self.raw, keys)


class TextBlocks(NamedTuple):
    """Whole lines of a file, the last one blank or the last one of the file."""

    place: Place
    raw: bytes
    num_bytes: int

    @property
    def in_memory(self) -> int:
        """Bytes."""
        return len(self.raw)

    def documents(self, keys: Sequence[str]) -> Iterator[Document | Reject]:
        """A document or a reject for each block."""
        begin, place = 0, self.place
        ends = [(match.start(), match.end()) for match in _BLANK_LINE_OR_END.finditer(self.raw)]
        for end, next_begin in (*ends, (len(self.raw), len(self.raw))):
            block = self.raw[begin:end]
            if block:
                yield _document(place, block.removesuffix(b"\n").removesuffix(b"\r"), keys)
            place = place._replace(number=place.number + self.raw.count(b"\n", begin, next_begin))
            begin = next_begin


def _document(place: Place, raw: bytes, keys: Sequence[str]) -> Document | Reject:
    try:
        if len(keys) != 1:
            raise Unusable(f"plain text has one text for each document, --json-keys names {len(keys)}")
        text = raw.decode("utf-8-sig" if place.number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        return place.reject(f"not valid UTF-8 (byte {error.start} of the document)")
    except Unusable as error:
        return place.reject(str(error))
    return Document(place, [[text]])


def read_whole_text(unit: Unit) -> Iterator[WholeText | Unread]:
    """The document that the file is."""
    place = Place(unit.path, 1)
    parts: list[bytes] = []
    size = num_bytes = 0
    try:
        for block in read_blocks(unit):
            num_bytes += block.num_bytes
            size += len(block.data)
            parts.append(block.data)
            if size > MAX_DOCUMENT_BYTES:
                yield Unread(place, f"{TOO_LONG}; --txt-documents blank-line divides it", max(unit.size, num_bytes))
                return
    except Damaged as error:
        yield Unread(place, str(error), num_bytes)
        return
    yield WholeText(place, b"".join(parts), num_bytes)


def read_text_blocks(unit: Unit) -> Iterator[TextBlocks | Unread]:
    """The blocks of a file, several to a piece. A block with damage in it is not read, nor one that is too long."""
    place = Place(unit.path, 1)
    parts: list[bytes] = []  # of the block that goes on in the next piece
    size = num_bytes = 0
    passing_over = False  # the rest of a block
    for piece in read_lines(unit):
        num_bytes += piece.num_bytes
        reason, raw = (piece.reason, b"") if isinstance(piece, Unread) else (TOO_LONG, piece.raw)
        end = _BLANK_LINE.search(raw)
        if isinstance(piece, Unread) or size + (end.start() if end else len(raw)) > MAX_DOCUMENT_BYTES:
            if not passing_over:
                yield Unread(place, reason, num_bytes)
                num_bytes = 0
            parts, size, passing_over = [], 0, True
        if passing_over:
            if end is None:
                continue
            place, raw, passing_over = _after(piece.place, raw[: end.end()]), raw[end.end() :], False
        cut = 0
        for end in _BLANK_LINE.finditer(raw):
            cut = end.end()
        if cut:
            whole = b"".join([*parts, raw[:cut]])
            yield TextBlocks(place, whole, num_bytes)
            place, raw = _after(place, whole), raw[cut:]
            parts, size, num_bytes = [], 0, 0
        parts.append(raw)
        size += len(raw)
    if size or num_bytes:
        yield TextBlocks(place, b"".join(parts), num_bytes)


def _after(place: Place, lines: bytes) -> Place:
    return place._replace(number=place.number + lines.count(b"\n"))
