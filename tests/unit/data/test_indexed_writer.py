"""Writing when things go wrong: a full disk, a place where one cannot write, two writers of one name, a kill."""

from __future__ import annotations

import errno
import io
import os
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from contextlm.data import indexed_writer
from contextlm.data.indexed import IndexedDataset
from contextlm.data.indexed_writer import IndexedWriter
from contextlm.data.sidecar import Origin, read_sidecar
from contextlm.errors import UserError

ORIGIN = Origin(tokenizer_type="ByteTokenizer", tokenizer_fingerprint="f", vocab_size=257, eod=256, text_bytes=5)


class Disk:
    """Takes a number of writes, then it is full."""

    def __init__(self, writes: int) -> None:
        self.writes = writes

    def take(self) -> None:
        self.writes -= 1
        if self.writes < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every file that the writer opens from now on lies on this disk."""
        real_temporary = tempfile.TemporaryFile
        monkeypatch.setattr(indexed_writer, "open", lambda *a, **k: _File(open(*a, **k), self), raising=False)
        monkeypatch.setattr(
            indexed_writer.tempfile, "TemporaryFile", lambda *a, **k: _File(real_temporary(*a, **k), self)
        )


class _File:
    def __init__(self, stream: io.BufferedRandom, disk: Disk) -> None:
        self._stream, self._disk = stream, disk

    def write(self, content: bytes) -> int:
        self._disk.take()
        return self._stream.write(content)

    def flush(self) -> None:
        self._disk.take()
        self._stream.flush()

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def write(prefix: Path, first: int) -> None:
    with IndexedWriter(prefix, 257) as writer:
        writer.add_document([first, 2, 3])
        writer.add_document([4])
        writer.origin = ORIGIN


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_disk_that_is_full_at_any_write_leaves_what_was_there(tmp_path: Path) -> None:
    write(tmp_path / "data", first=1)
    before = content(tmp_path)
    for writes in range(100):
        with pytest.MonkeyPatch.context() as monkeypatch:
            Disk(writes).install(monkeypatch)
            try:
                write(tmp_path / "data", first=9)
                break
            except UserError as error:
                assert "data.bin and .idx cannot be written (No space left on device)" in str(error)
        assert content(tmp_path) == before
    assert writes > 10  # the disk was full in tokens, tables, index and sidecar
    assert IndexedDataset(tmp_path / "data").get(0).tolist() == [9, 2, 3] and len(content(tmp_path)) == 3


def test_a_place_where_one_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UserError, match=r"cannot be written \((File exists|Not a directory): .*file.*\).*give another place"
    ):
        write(tmp_path / "file" / "data", first=1)


def test_two_writers_of_one_name(tmp_path: Path) -> None:
    with IndexedWriter(tmp_path / "data", 257) as writer:
        writer.add_document([7])
        with pytest.raises(UserError, match="another process is writing this dataset"):
            write(tmp_path / "data", first=1)
    assert IndexedDataset(tmp_path / "data").get(0).tolist() == [7]
    write(tmp_path / "data", first=1)  # once it is done, the name is free
    assert IndexedDataset(tmp_path / "data").get(0).tolist() == [1, 2, 3]


def test_what_a_killed_run_left_is_written_over(tmp_path: Path) -> None:
    for suffix in (".bin.part", ".idx.part", ".json.part"):
        (tmp_path / f"data{suffix}").write_bytes(b"x" * 1000)
    write(tmp_path / "data", first=1)
    assert sorted(content(tmp_path)) == ["data.bin", "data.idx", "data.json"]
    assert (tmp_path / "data.bin").stat().st_size == 8


def test_a_kill_between_any_two_renames_leaves_no_pair_that_looks_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: with the last rename the pair is there, with the sidecar that belongs to it."""
    write(tmp_path / "data", first=1)
    real, seen = os.replace, []

    def replace(source: str, target: str) -> None:
        files = set(content(tmp_path))
        seen.append({"data.bin", "data.idx"} <= files)
        real(source, target)

    monkeypatch.setattr(indexed_writer.os, "replace", replace)
    write(tmp_path / "data", first=9)
    assert seen == [False, False, False]
    dataset, sidecar = IndexedDataset(tmp_path / "data"), read_sidecar(str(tmp_path / "data"))
    assert sidecar.describes(dataset) and (sidecar.documents, sidecar.tokens, sidecar.max_token_id) == (2, 4, 9)


def test_memory_does_not_grow_with_the_number_of_documents(tmp_path: Path) -> None:
    ids, ones = np.zeros(20_000, np.uint16), np.ones(20_000, np.int64)

    def peak(batches: int) -> int:
        tracemalloc.start()
        with IndexedWriter(tmp_path / "data", 257) as writer:
            for _ in range(batches):
                writer.add_documents(ids, ones, ones)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    assert peak(60) < 15e6 < 60 * 20_000 * 20  # the index alone has 20 bytes a document
