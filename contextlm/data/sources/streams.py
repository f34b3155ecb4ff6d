"""Files as blocks of bytes: a range of a plain file, a compressed file unpacked, stdin.

The decompressors are used directly rather than through file objects like `gzip.open`: those lose what they had
unpacked already when they meet the damage in a file.
"""

from __future__ import annotations

import bz2
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import BinaryIO, NamedTuple, Protocol

from contextlm.data.sources.unit import STDIN, Unit

BLOCK_BYTES = 1 << 18
# Zstandard gives all at once that its input unpacks to, up to 32,768 times as much.
FEED_BYTES = 1 << 13
# Archives for `zstd --long=31` need as much memory as they were compressed with; none is taken before it is used.
MAX_ZSTD_WINDOW = 1 << 31


class Block(NamedTuple):
    """At most `BLOCK_BYTES` of content, and how many bytes of the file were read for them."""

    data: bytes
    num_bytes: int


class Damaged(Exception):
    """The rest of a file cannot be read; the text is the reason."""


def read_blocks(unit: Unit) -> Iterator[Block]:
    """The content of a unit.

    Raises:
        Damaged: after everything that could be unpacked.
        OSError: the system cannot read the file.
    """
    source = nullcontext(sys.stdin.buffer) if unit.path == STDIN else open(unit.path, "rb", buffering=0)
    with source as stream:
        if unit.compression:
            yield from _unpacked(stream, unit.compression)
        else:
            yield from _plain(stream, unit.start, unit.stop)


def _plain(stream: BinaryIO, start: int, stop: int | None) -> Iterator[Block]:
    if start:
        stream.seek(start)
    left = sys.maxsize if stop is None else stop - start
    while left > 0 and (data := stream.read(min(BLOCK_BYTES, left))):
        left -= len(data)
        yield Block(data, len(data))


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Gzip:
    """zlib's object with the interface of bz2's and lzma's."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._decoder.decompress(self._decoder.unconsumed_tail + data, max_length)


class _Zstandard:
    """zstandard's object with the interface of bz2's and lzma's, except that `max_length` is not kept."""

    def __init__(self) -> None:
        import zstandard

        self._decoder = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW).decompressobj()

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._decoder.decompress(data) if data else b""


_DECODERS: dict[str, tuple[str, Callable[[], _Decoder]]] = {
    ".gz": ("gzip", _Gzip),
    ".bz2": ("bzip2", bz2.BZ2Decompressor),
    ".xz": ("xz", lzma.LZMADecompressor),
    ".zst": ("Zstandard", _Zstandard),
}


def _unpacked(stream: BinaryIO, compression: str) -> Iterator[Block]:
    """Blocks of `BLOCK_BYTES`, but for the last one before the end or the damage."""
    parts: list[bytes] = []
    size = num_bytes = 0
    damage: Damaged | None = None
    pieces = _unpacked_pieces(stream, compression)
    while True:
        try:
            piece = next(pieces)
        except StopIteration:
            break
        except Damaged as error:
            damage = error
            break
        num_bytes += piece.num_bytes
        parts.append(piece.data)
        size += len(piece.data)
        if size >= BLOCK_BYTES:
            data = b"".join(parts)
            whole = size - size % BLOCK_BYTES
            for start in range(0, whole, BLOCK_BYTES):
                yield Block(data[start : start + BLOCK_BYTES], num_bytes)
                num_bytes = 0
            parts, size = [data[whole:]], size - whole
    if size or num_bytes:
        yield Block(b"".join(parts), num_bytes)
    if damage is not None:
        raise damage


def _unpacked_pieces(stream: BinaryIO, compression: str) -> Iterator[Block]:
    """What the decompressor gives, member after member; zeros between and after them are padding."""
    name, new_decoder = _DECODERS[compression]
    decoder = new_decoder()
    first_member = True
    data = stream.read(FEED_BYTES)
    if not data:
        raise Damaged(f"the file is empty, which no {name} file is")
    num_bytes = len(data)
    while True:
        try:
            unpacked = decoder.decompress(data, BLOCK_BYTES)
        except MemoryError:
            raise
        except Exception as error:  # Each library raises its own, and none anything else for bad data.
            what = f"damaged {name} data" if first_member else f"garbage, or damaged data, after the first {name} data"
            raise Damaged(f"{what} ({error})") from None
        yield Block(unpacked, num_bytes)
        data, num_bytes = b"", 0
        if decoder.eof:
            data = decoder.unused_data.lstrip(b"\0")
            while not data and (block := stream.read(FEED_BYTES)):
                num_bytes += len(block)
                data = block.lstrip(b"\0")
            if not data:
                yield Block(b"", num_bytes)
                return
            decoder = new_decoder()
            first_member = False
        elif len(unpacked) < BLOCK_BYTES:  # Otherwise it may hold more.
            data = stream.read(FEED_BYTES)
            num_bytes = len(data)
            if not data:
                raise Damaged(f"the {name} data ends in the middle: the file was cut off")
