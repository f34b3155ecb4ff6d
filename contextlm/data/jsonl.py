"""Reads `.jsonl` files as batches of raw lines, in order, never more than one batch in memory.

What is in a line is the business of `document_encoding.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from contextlm.errors import UserError

BATCH_BYTES = 1 << 18
READABLE = (".jsonl", ".json")
NOT_YET = (".gz", ".zst", ".xz", ".bz2", ".parquet", ".arrow", ".csv", ".txt")


class LineBatch(NamedTuple):
    """Consecutive lines of one file.

    Attributes:
        path: the file.
        first_line: number of the first line, counted from 1.
        lines: their bytes, newline included.
        num_bytes: bytes of all lines.
    """

    path: str
    first_line: int
    lines: list[bytes]
    num_bytes: int


def check_inputs(paths: Sequence[str]) -> int:
    """Total size in bytes.

    Raises:
        UserError: every file that is missing or of a kind that is not read.
    """
    problems = []
    for path in paths:
        suffix = Path(path).suffix
        if path == "-":
            problems.append("--input -: reading from stdin is not supported yet; write the documents to a .jsonl file")
        elif suffix in NOT_YET:
            problems.append(f"--input {path}: {suffix} files are not supported yet; convert it to .jsonl")
        elif suffix not in READABLE:
            problems.append(f"--input {path}: not a .jsonl file (one JSON object per line)")
        elif not Path(path).is_file():
            problems.append(f"--input {path}: no such file")
    if problems:
        raise UserError(*problems)
    return sum(Path(path).stat().st_size for path in paths)


def read_batches(paths: Sequence[str]) -> Iterator[LineBatch]:
    """All lines of all files; a batch ends after `BATCH_BYTES` or with its file."""
    for path in paths:
        lines: list[bytes] = []
        first, size = 1, 0
        with open(path, "rb") as stream:
            for line in stream:
                lines.append(line)
                size += len(line)
                if size >= BATCH_BYTES:
                    yield LineBatch(path, first, lines, size)
                    first, lines, size = first + len(lines), [], 0
        if lines:
            yield LineBatch(path, first, lines, size)
