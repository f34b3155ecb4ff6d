"""How a stream of blocks is cut into lines and paragraphs, against the same done to all of it at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextlm.data.sources import json_lines, plain_text, streams
from contextlm.data.sources.json_lines import read_lines
from contextlm.data.sources.plain_text import read_text_blocks, read_whole_text
from contextlm.data.sources.unit import Unit
from tests.unit.data.sources.reading import PATIENT

LIMIT = 12
contents = st.lists(st.sampled_from([b"a", b"b", b" ", b"\r", b"\n", b"\n", b"\t", b"abcdefghi"]), max_size=60).map(
    b"".join
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("splitting") / "a"


def read(reader, path: Path, content: bytes, block_bytes: int) -> list[tuple[int, str | None]]:
    """Line and text of each document, with None for the text of one that is too long."""
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "BLOCK_BYTES", block_bytes)
        for module in (json_lines, plain_text):
            patch.setattr(module, "MAX_DOCUMENT_BYTES", LIMIT)
        pieces = list(reader(Unit(str(path), "text", len(content))))
    if reader is read_lines:
        return [
            (piece.place.number + n, line)
            for piece in pieces
            for n, line in enumerate([None] if not hasattr(piece, "raw") else piece.raw.splitlines(keepends=True))
        ]
    items = [item for piece in pieces for item in piece.documents(["text"])]
    return [(item.place.line, item.texts[0][0]) if hasattr(item, "texts") else (item.line, None) for item in items]


@settings(PATIENT, max_examples=100)
@given(content=contents.map(lambda content: content.replace(b"\r", b"")), block_bytes=st.integers(1, LIMIT))
def test_lines(path: Path, content: bytes, block_bytes: int) -> None:
    lines = content.splitlines(keepends=True)
    expected = [(n, None if len(line) > LIMIT else line) for n, line in enumerate(lines, 1)]
    assert read(read_lines, path, content, block_bytes) == expected


@settings(PATIENT, max_examples=150)
@given(content=contents, block_bytes=st.integers(1, LIMIT))
def test_text_between_blank_lines(path: Path, content: bytes, block_bytes: int) -> None:
    content = content.rstrip(b" \t\r")  # What follows the last line end counts as a part of the block before it.
    lines = re.findall(rb"[^\n]*\n|[^\n]+", content)
    expected: list[tuple[int, str | None]] = []
    block: list[bytes] = []
    for number, line in enumerate([*lines, b"\n"], 1):
        if line.strip():
            block.append(line)
        elif block:
            whole = b"".join(block)
            text = whole.removesuffix(b"\n").removesuffix(b"\r").decode()
            expected.append((number - len(block), None if len(whole) > LIMIT else text))
            block = []
    assert read(read_text_blocks, path, content, block_bytes) == expected


@pytest.mark.parametrize("length", [0, LIMIT, LIMIT + 1])
def test_whole_files(path: Path, length: int) -> None:
    expected = "x" * length if length <= LIMIT else None
    assert read(read_whole_text, path, b"x" * length, 5) == [(1, expected)]
