"""What can be read by itself: a file, or a part of one."""

from __future__ import annotations

from dataclasses import dataclass

STDIN = "-"
HUB = "hf://"


@dataclass(frozen=True)
class Unit:
    """A contiguous piece of one input that can be read by itself.

    Attributes:
        path: the file, `-` for stdin, or `hf://` and what follows.
        format: `json` (an object per line), `text` (a document per file), `blocks` (text divided by blank lines),
            `parquet`, `hub` (streamed), `saved` (a folder of `datasets`).
        size: bytes of the file, as they are stored; 0 where that is not known (stdin, streamed).
        compression: `.gz`, `.zst`, `.xz`, `.bz2`, or nothing.
        start: where it begins: a byte that begins a line, a row group of a parquet file, a row of a saved dataset.
        stop: where it ends, the first that is not in it; None for the end of the file.
    """

    path: str
    format: str
    size: int
    compression: str = ""
    start: int = 0
    stop: int | None = None
