"""The sidecar: what is written is read, old files too, and a source's hash sees what it says it sees."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from contextlm.data.fingerprints import END_BYTES, source_of
from contextlm.data.sidecar import Part, Sidecar, Source, read_sidecar, sampled_sha256
from contextlm.errors import UserError

OLD = {
    "tokenizer_type": "ByteTokenizer",
    "tokenizer_fingerprint": "f",
    "vocab_size": 257,
    "eod": 256,
    "documents": 1,
    "tokens": 2,
    "text_bytes": 2,
    "max_token_id": 98,
    "bin_bytes": 4,
    "idx_sha256": "0",
}


def test_round_trip(tmp_path: Path) -> None:
    name = b"caf\xc3\xa9-\xff.jsonl".decode(errors="surrogateescape")  # a file name need not be UTF-8
    sidecar = Sidecar(
        **OLD, append_eod=True, rejects=3, sources=(Source(name, 5, "1"), Source("-")), part=Part("r", 1, 2)
    )
    sidecar.write(str(tmp_path / "data"))
    assert read_sidecar(str(tmp_path / "data")) == sidecar
    assert "café" in (tmp_path / "data.json").read_text(encoding="utf-8")


def test_a_file_without_the_later_fields_is_read(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text(json.dumps(OLD))
    assert read_sidecar(str(tmp_path / "data")) == Sidecar(**OLD)


@pytest.mark.parametrize("change", [{"sources": [{"nam": 1}]}, {"part": {"run": "r", "x": 1}}, {"sources": 5}])
def test_a_damaged_file_is_an_error(tmp_path: Path, change: dict) -> None:
    (tmp_path / "data.json").write_text(json.dumps(OLD | change))
    with pytest.raises(UserError, match="does not describe the dataset"):
        read_sidecar(str(tmp_path / "data"))


@pytest.mark.parametrize("size", [0, 5, END_BYTES, END_BYTES + 1, 2 * END_BYTES])
def test_a_source_up_to_two_ends_is_hashed_whole(tmp_path: Path, size: int) -> None:
    content = bytes(i % 251 for i in range(size))
    (tmp_path / "a").write_bytes(content)
    assert source_of(str(tmp_path / "a")) == Source(str(tmp_path / "a"), size, hashlib.sha256(content).hexdigest())


def test_of_a_larger_one_both_ends_and_the_size_count(tmp_path: Path) -> None:
    path, content = tmp_path / "a", bytearray(3 * END_BYTES)
    path.write_bytes(content)
    before = source_of(str(path))
    changed = {}
    for place in (0, END_BYTES + 5, len(content) - 1):
        content[place] ^= 1
        path.write_bytes(content)
        changed[place] = source_of(str(path)) != before
        content[place] ^= 1
    assert list(changed.values()) == [True, False, True]  # the middle is not read
    path.write_bytes(content + b"\0")
    assert source_of(str(path)) != before


@pytest.mark.parametrize("size", [0, 5, 1 << 22, (1 << 22) + 1, 10_000_000])
def test_the_sampled_hash_sees_both_ends_and_the_size(tmp_path: Path, size: int) -> None:
    content = bytearray(size)
    (tmp_path / "a").write_bytes(content)
    found = {sampled_sha256(tmp_path / "a")}
    places = {0, size // 2, size - 1} if 0 < size <= 1 << 22 else {0, size - 1} if size else set()
    for place in places:
        content[place] = 1
        (tmp_path / "a").write_bytes(content)
        found.add(sampled_sha256(tmp_path / "a"))
        content[place] = 0
    assert len(found) == 1 + len(places)
    content[size // 126 : size // 126 + 1] = b"x" * min(1, size)  # between two pieces of a large file
    (tmp_path / "a").write_bytes(content)
    assert (sampled_sha256(tmp_path / "a") in found) == (size in (0, 10_000_000))
