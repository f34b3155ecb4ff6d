"""The `.bin/.idx` format: exact bytes, what opening checks, what writing refuses."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from contextlm.data import indexed
from contextlm.data.indexed import DataLost, IndexedDataset
from contextlm.data.indexed_writer import IndexedWriter
from contextlm.errors import UserError


def test_bytes_are_those_of_the_format(tmp_path: Path) -> None:
    """Written out by hand: three documents, the second empty, the third of two sequences."""
    prefix = tmp_path / "new folder" / "data"
    with IndexedWriter(prefix, vocab_size=1000) as writer:
        writer.add_document([1, 2, 3])
        writer.add_document([])
        writer.add_document([4, 999], lengths=[1, 1])
    expected = b"MMIDIDX\x00\x00" + struct.pack("<Q", 1) + struct.pack("<B", 8)
    expected += struct.pack("<QQ", 3, 4)
    expected += struct.pack("<3i", 3, 1, 1) + struct.pack("<3q", 0, 6, 8) + struct.pack("<4q", 0, 1, 1, 3)
    assert Path(f"{prefix}.idx").read_bytes() == expected
    assert Path(f"{prefix}.bin").read_bytes() == struct.pack("<5H", 1, 2, 3, 4, 999)
    assert sorted(path.name for path in prefix.parent.iterdir()) == ["data.bin", "data.idx"]


@pytest.mark.parametrize(("vocab_size", "bytes_per_token"), [(65499, 2), (65500, 4)])
def test_type_follows_the_vocabulary(tmp_path: Path, vocab_size: int, bytes_per_token: int) -> None:
    with IndexedWriter(tmp_path / "data", vocab_size) as writer:
        writer.add_document([vocab_size - 1, 0])
    dataset = IndexedDataset(tmp_path / "data")
    assert dataset.bin_bytes == 2 * bytes_per_token == (tmp_path / "data.bin").stat().st_size
    assert dataset.get(0).tolist() == [vocab_size - 1, 0]


def test_reading_back(tmp_path: Path) -> None:
    with IndexedWriter(tmp_path / "data", 300) as writer:
        writer.add_document([10, 11, 12, 13])
        writer.add_document([])
        writer.add_document([20, 21, 22], lengths=[2, 1])
        writer.add_document([])
    dataset = IndexedDataset(tmp_path / "data")
    assert dataset.lengths.tolist() == [4, 2, 1]
    assert dataset.document_starts.tolist() == [0, 1, 1, 3, 3]
    assert dataset.document_bounds.tolist() == [0, 4, 7]
    assert dataset.num_tokens == 7
    assert dataset.get(0, 1, 2).tolist() == [11, 12]
    assert dataset.get(1).tolist() == [20, 21]
    assert dataset.get(2).tolist() == [22]
    for offset, length in ((0, 5), (-1, 2), (4, 1)):
        with pytest.raises(IndexError):
            dataset.get(0, offset, length)


def test_tokens_are_copies_that_outlive_the_dataset(tmp_path: Path) -> None:
    with IndexedWriter(tmp_path / "data", 300) as writer:
        writer.add_document([1, 2, 3])
    dataset = IndexedDataset(tmp_path / "data")
    tokens = dataset.get(0)
    assert type(tokens) is np.ndarray and tokens.flags.owndata and tokens.flags.writeable


def test_dataset_without_a_token_opens(tmp_path: Path) -> None:
    with IndexedWriter(tmp_path / "data", 300) as writer:
        writer.add_document([])
    dataset = IndexedDataset(tmp_path / "data")
    assert dataset.num_tokens == 0 and dataset.document_bounds.tolist() == [0]


@pytest.mark.parametrize("ids", [[300], [-1], [5, 70_000]])
def test_ids_outside_the_vocabulary_are_refused_and_nothing_stays(tmp_path: Path, ids: list[int]) -> None:
    with pytest.raises(UserError, match="outside the vocabulary of 300"):
        with IndexedWriter(tmp_path / "data", 300) as writer:
            writer.add_document([1, 2])
            writer.add_document(ids)
    assert list(tmp_path.iterdir()) == []


def test_failure_keeps_the_dataset_that_was_there(tmp_path: Path) -> None:
    with IndexedWriter(tmp_path / "data", 300) as writer:
        writer.add_document([1, 2])
    with pytest.raises(RuntimeError):
        with IndexedWriter(tmp_path / "data", 300) as writer:
            writer.add_document([3])
            raise RuntimeError
    assert IndexedDataset(tmp_path / "data").get(0).tolist() == [1, 2]


def test_old_sidecar_does_not_stay_beside_new_tokens(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text("{}")
    with IndexedWriter(tmp_path / "data", 300) as writer:
        writer.add_document([1])
    assert not (tmp_path / "data.json").exists()


def test_truncated_tokens(tmp_path: Path) -> None:
    write(tmp_path)
    content = (tmp_path / "data.bin").read_bytes()
    (tmp_path / "data.bin").write_bytes(content[:-1])
    with pytest.raises(UserError, match="data.bin is truncated: 10 bytes expected, 9 found"):
        IndexedDataset(tmp_path / "data")


@pytest.mark.parametrize("size", [12, 34, 60])
def test_truncated_index(tmp_path: Path, size: int) -> None:
    write(tmp_path)
    content = (tmp_path / "data.idx").read_bytes()
    (tmp_path / "data.idx").write_bytes(content[:size])
    with pytest.raises(UserError, match="data.idx is truncated"):
        IndexedDataset(tmp_path / "data")


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (0, b"XX", "is not a Megatron index"),
        (9, struct.pack("<Q", 2), "version 2"),
        (17, b"\x06", "no token ids"),
        (17, b"\x04", "damaged"),  # 4 bytes a token: the byte offsets no longer fit
        (18, struct.pack("<Q", 1), "damaged"),
        (18, struct.pack("<Q", 3), "truncated"),
        (18, struct.pack("<Q", 2**60), "truncated"),
        (34, struct.pack("<i", 2), "damaged"),
        (34, struct.pack("<i", -3), "damaged"),
        (42, struct.pack("<q", 2), "damaged"),
        (58, struct.pack("<q", 1), "damaged"),
        (74, struct.pack("<q", 1), "damaged"),
        (0, b"PK\x03\x04", "is not a Megatron index"),
        (7, b"\x01", "is not a Megatron index"),
        (9, struct.pack("<Q", 0), "version 0"),
        (17, b"\x00", "no token ids"),
        (17, b"\x07", "no token ids"),  # float32
        (17, b"\xff", "no token ids"),
        (18, struct.pack("<Q", 2**64 - 1), "truncated"),
        (26, struct.pack("<Q", 0), "damaged"),  # not even the end of the last document
        (26, struct.pack("<Q", 2**64 - 1), "truncated"),
        (42, struct.pack("<q", -6), "damaged"),
        (50, struct.pack("<q", 0), "damaged"),  # both sequences at one place
        (50, struct.pack("<q", 4), "damaged"),  # overlapping
        (50, struct.pack("<q", 8), "damaged"),  # with a gap
        (58, struct.pack("<q", -1), "damaged"),
        (66, struct.pack("<q", 3), "damaged"),  # beyond the last sequence
        (66, struct.pack("<q", -1), "damaged"),
    ],
)
def test_damaged_index(tmp_path: Path, offset: int, value: bytes, message: str) -> None:
    write(tmp_path)
    content = bytearray((tmp_path / "data.idx").read_bytes())
    content[offset : offset + len(value)] = value
    (tmp_path / "data.idx").write_bytes(content)
    with pytest.raises(UserError, match=message):
        IndexedDataset(tmp_path / "data")


def test_lengths_that_overflow_are_damage(tmp_path: Path) -> None:
    """Two of 2^31 - 1 tokens, in a table that agrees with itself: the tokens are not there."""
    index = struct.pack("<9sQBQQ", b"MMIDIDX\x00\x00", 1, 8, 2, 2) + struct.pack("<2i", *[2**31 - 1] * 2)
    index += struct.pack("<2q", 0, 2 * (2**31 - 1)) + struct.pack("<2q", 0, 2)
    (tmp_path / "data.idx").write_bytes(index)
    (tmp_path / "data.bin").write_bytes(b"")
    with pytest.raises(UserError, match="data.bin is truncated: 8589934588 bytes expected, 0 found"):
        IndexedDataset(tmp_path / "data")


@pytest.mark.parametrize("piece", [1, 2, 3, 7])
def test_a_large_index_is_checked_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    """Each of its numbers counts, wherever the pieces end."""
    monkeypatch.setattr(indexed, "_CHECKED_AT_ONCE", piece)
    with IndexedWriter(tmp_path / "data", 1000) as writer:
        for length in (3, 2, 0, 4, 1, 1):
            writer.add_document(range(length))
    assert IndexedDataset(tmp_path / "data").document_bounds.tolist() == [0, 3, 5, 9, 10, 11]
    content = (tmp_path / "data.idx").read_bytes()
    documents = 34 + 5 * 12
    for offset in [*range(34, 54, 4), *range(54, documents, 8), documents, documents + 6 * 8]:
        changed = bytearray(content)
        changed[offset] += 1
        (tmp_path / "data.idx").write_bytes(changed)
        with pytest.raises(UserError, match="damaged|bin is truncated"):
            IndexedDataset(tmp_path / "data")
    changed = bytearray(content)
    changed[documents + 8] = 3  # the second document would begin after the third
    (tmp_path / "data.idx").write_bytes(changed)
    with pytest.raises(UserError, match="damaged"):
        IndexedDataset(tmp_path / "data")


@pytest.mark.parametrize("suffix", [".idx", ".bin"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(b""), "is empty|is truncated"),
        (lambda path: path.write_bytes(path.read_bytes() + b"\0"), "is damaged|is longer than its index says"),
        (lambda path: (path.unlink(), path.mkdir()), "missing"),
        (lambda path: (path.unlink(), path.symlink_to(path)), "missing"),
        (lambda path: path.write_bytes(bytes(len(path.read_bytes()))), "is not a Megatron index|^sound$"),
    ],
    ids=["empty", "longer", "a folder", "a link to itself", "zeros"],
)
def test_malformed_files(tmp_path: Path, suffix: str, spoil, message: str) -> None:
    write(tmp_path)
    spoil(tmp_path / f"data{suffix}")
    if (suffix, message[-7:]) == (".bin", "^sound$"):
        assert IndexedDataset(tmp_path / "data").get(0).tolist() == [0, 0, 0]  # zeros are token ids
        return
    with pytest.raises(UserError, match=message):
        IndexedDataset(tmp_path / "data")


@pytest.mark.parametrize("suffix", [".idx", ".bin"])
def test_files_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """As the system says it to one who is not root."""
    write(tmp_path)

    def refuse(path, *arguments, **options):
        if str(path).endswith(suffix):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return open(path, *arguments, **options)

    monkeypatch.setattr(indexed, "open", refuse, raising=False)
    with pytest.raises(UserError, match=f"data{suffix} cannot be read: Permission denied; check the permissions"):
        IndexedDataset(tmp_path / "data")


def test_missing_files_name_what_is_near(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(UserError, match=r"dat: no such dataset .*datasets in that folder: .*/data$"):
        IndexedDataset(tmp_path / "dat")
    with pytest.raises(UserError, match=r"give the prefix without its ending: .*/data$"):
        IndexedDataset(tmp_path / "data.bin")
    with pytest.raises(UserError, match="there is no folder"):
        IndexedDataset(tmp_path / "no" / "data")
    (tmp_path / "data.bin").unlink()
    with pytest.raises(UserError, match=r"\(.*data.bin missing\)"):
        IndexedDataset(tmp_path / "data")


def write(folder: Path) -> None:
    with IndexedWriter(folder / "data", 1000) as writer:
        writer.add_document([1, 2, 3])
        writer.add_document([4, 5])


def test_a_file_that_is_truncated_while_it_is_read_is_an_error_and_no_crash(tmp_path: Path) -> None:
    with IndexedWriter(tmp_path / "data", 300) as writer:
        writer.add_document(list(range(200)))
    dataset, removed = IndexedDataset(tmp_path / "data"), IndexedDataset(tmp_path / "data")
    assert dataset.tokens(190, 50).tolist() == list(range(190, 200))  # up to the end
    with open(tmp_path / "data.bin", "r+b") as file:
        file.truncate(100)
    assert dataset.tokens(0, 50).tolist() == list(range(50))
    with pytest.raises(DataLost, match="data.bin has become shorter than the 400 bytes it had"):
        dataset.tokens(40, 20)
    # A file that is only removed can still be read by who has opened it.
    (tmp_path / "data.bin").unlink()
    assert removed.tokens(0, 50).tolist() == list(range(50))
