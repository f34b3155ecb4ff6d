"""Shards one after another are the whole input, wherever it is cut."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextlm.data.sources import documents
from contextlm.data.sources.batches import read_batches
from contextlm.data.sources.documents import Document
from contextlm.data.sources.sharing import share
from contextlm.data.sources.unit import Unit
from contextlm.data.sources.units import find_units
from tests.unit.data.sources.reading import PATIENT


def read(units: list[Unit], batch_bytes: int = 1 << 18) -> list[tuple[int, str]]:
    """Line and text of every document."""
    items = [item for batch in read_batches(units, ["text"], batch_bytes) for item in batch.documents()]
    assert all(isinstance(item, Document) for item in items)
    return [(item.place.line, item.texts[0][0]) for item in items]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shards")


@settings(PATIENT, max_examples=60)
@given(
    files=st.lists(st.lists(st.text(max_size=60), max_size=8), min_size=1, max_size=5),
    packed=st.lists(st.booleans(), min_size=5, max_size=5),
    num_shards=st.integers(1, 9),
)
def test_shards_are_the_whole(folder: Path, files: list[list[str]], packed: list[bool], num_shards: int) -> None:
    documents._lines_before.cache_clear()  # Each example has other files of the same names.
    paths = []
    for number, texts in enumerate(files):
        lines = "\n".join(json.dumps({"text": text}) for text in texts).encode()
        path = folder / (f"{number}.jsonl.gz" if packed[number] else f"{number}.jsonl")
        path.write_bytes(gzip.compress(lines) if packed[number] else lines)
        paths.append(str(path))
    units = find_units(paths)
    shards = [share(units, num_shards, shard) for shard in range(num_shards)]
    assert [item for shard in shards for item in read(shard)] == read(units)
    assert sum(unit.size for shard in shards for unit in shard) == sum(unit.size for unit in units)


def test_shards_are_balanced(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": "x" * (n % 90)}) + "\n" for n in range(2000)))
    (whole,) = find_units([str(path)])
    sizes = [sum(unit.size for unit in share([whole], 7, shard)) for shard in range(7)]
    assert sum(sizes) == whole.size and max(sizes) - min(sizes) < 220
