"""What is read: documents, and what could not be used as one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

# A longer line or file is no document. It would need several times its size in memory.
MAX_DOCUMENT_BYTES = 128 << 20


class Place(NamedTuple):
    """Where a document is.

    Attributes:
        path: of its file, or name of its dataset.
        number: line or row at which it begins, counted from 1, at `offset`.
        offset: byte of the file where the counting began; not 0 in a file that is shared among machines.
    """

    path: str
    number: int
    offset: int = 0

    @property
    def line(self) -> int:
        """Line or row in the whole file; the lines before `offset` are counted when somebody asks, once."""
        return self.number + (_lines_before(self.path, self.offset) if self.offset else 0)

    def reject(self, reason: str) -> Reject:
        """This place as one that could not be used."""
        return Reject(self.path, self.line, reason)


class Document(NamedTuple):
    """One document.

    Attributes:
        place: where it is, for what else may be wrong with it: `document.place.reject("...")`.
        texts: for each key its text as a list of sentences; one, unless the value is a list of strings.
    """

    place: Place
    texts: list[list[str]]


class Reject(NamedTuple):
    """What could not be used: a document, or a file from a line on; `line` and rows count from 1."""

    path: str
    line: int
    reason: str


class Unread(NamedTuple):
    """A piece of the input that was passed over: a line that is too long, the rest of a damaged file.

    Attributes:
        place: where it begins.
        reason: why.
        num_bytes: bytes of the file that were read for it.
    """

    place: Place
    reason: str
    num_bytes: int
    in_memory: int = 0

    def documents(self, keys: Sequence[str]) -> Iterator[Document | Reject]:
        """One reject."""
        yield self.place.reject(self.reason)


class Unusable(Exception):
    """Something is no document; the text is the reason."""


def texts_of(record: Mapping[str, Any], keys: Sequence[str]) -> list[list[str]]:
    """For each key its text as a list of sentences.

    Raises:
        Unusable: a key is missing, or its value is no text.
    """
    return [_sentences(record, key) for key in keys]


def _sentences(record: Mapping[str, Any], key: str) -> list[str]:
    if key not in record:
        raise Unusable(f"no key {key!r}; keys of this line: {', '.join(map(repr, record)) or 'none'}")
    value = record[key]
    sentences = value if isinstance(value, list) else [value]
    for sentence in sentences:
        if not isinstance(sentence, str):
            raise Unusable(f"{key!r} is {kind_of(sentence)}, not text")
        if not sentence.isascii():
            try:
                sentence.encode()
            except UnicodeEncodeError:
                raise Unusable(f"{key!r} holds a lone surrogate, which is not valid Unicode") from None
    return sentences


def kind_of(value: Any) -> str:
    """What a value of JSON or of a table is, in words."""
    names = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object", str: "text"}
    names |= {type(None): "null", bytes: "bytes that may not be UTF-8"}
    return names.get(type(value), f"a {type(value).__name__}")


@lru_cache(maxsize=64)
def _lines_before(path: str, offset: int) -> int:
    """Newlines in the first `offset` bytes."""
    lines = 0
    with open(path, "rb") as stream:
        while offset > 0 and (block := stream.read(min(1 << 20, offset))):
            lines += block.count(b"\n")
            offset -= len(block)
    return lines
