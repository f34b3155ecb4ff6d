"""The manifest lists every file of a checkpoint once, whichever rank wrote it, with its length and hash."""

from __future__ import annotations

import hashlib
import json

import pytest

from contextlm.checkpoints import manifest

FILES = {
    "__0_0.distcp": b"a" * 3_000_000,
    "__0_1.distcp": b"b",
    "__1_0.distcp": b"",
    "__11_0.distcp": b"d",
    ".metadata": b"e",
    "common.pt": b"f",
    "tokenizer/vocabulary.json": b"g",
}


@pytest.fixture
def folder(tmp_path):
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_every_file_is_listed_by_one_rank(folder):
    names = [name for rank in range(12) for name in manifest.written_by(folder, rank)]
    assert sorted(names) == sorted(FILES)
    assert manifest.written_by(folder, 1) == ["__1_0.distcp"]


def test_lengths_and_hashes_are_the_files(folder):
    manifest.write(folder, manifest.digests(folder, FILES))
    written = json.loads((folder / "manifest.json").read_text())
    assert written["format"] == 1
    assert written["files"] == {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in FILES.items()
    }
    assert "manifest.json" not in manifest.written_by(folder, 0)
