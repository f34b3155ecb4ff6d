"""Megatron's own reader and writer against ours: the same files, both ways."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from contextlm.data.indexed import IndexedDataset
from contextlm.data.indexed_writer import IndexedWriter

DOCUMENTS = [[[1, 2, 3]], [], [[4], [5, 6]], [[999] * 50], []]


@pytest.fixture(scope="module")
def megatron():
    """megatron.core.datasets.indexed_dataset, whose import takes seconds."""
    return pytest.importorskip("megatron.core.datasets.indexed_dataset")


def documents(vocab_size: int) -> list[list[list[int]]]:
    """DOCUMENTS and some random ones: documents of sequences of ids."""
    rng = random.Random(vocab_size)
    more = [[[rng.randrange(vocab_size) for _ in range(rng.randrange(1, 40))]] for _ in range(50)]
    return DOCUMENTS + more


@pytest.mark.parametrize("vocab_size", [1000, 65499, 65500, 100_000])
def test_files_are_the_same_bytes(megatron, tmp_path: Path, vocab_size: int) -> None:
    write_ours(tmp_path / "ours", vocab_size)
    write_theirs(megatron, tmp_path / "theirs", vocab_size)
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"ours{suffix}").read_bytes() == (tmp_path / f"theirs{suffix}").read_bytes()


def test_megatron_reads_ours_and_we_read_theirs(megatron, tmp_path: Path) -> None:
    write_ours(tmp_path / "ours", 70_000)
    write_theirs(megatron, tmp_path / "theirs", 70_000)
    expected = [sequence for document in documents(70_000) for sequence in document]
    theirs_of_ours = megatron.IndexedDataset(str(tmp_path / "ours"))
    assert [theirs_of_ours[i].tolist() for i in range(len(theirs_of_ours))] == expected
    ours_of_theirs = IndexedDataset(tmp_path / "theirs")
    assert [ours_of_theirs.get(i).tolist() for i in range(len(ours_of_theirs.lengths))] == expected
    assert theirs_of_ours.document_indices.tolist() == ours_of_theirs.document_starts.tolist()


def write_ours(prefix: Path, vocab_size: int) -> None:
    with IndexedWriter(prefix, vocab_size) as writer:
        for document in documents(vocab_size):
            flat = [token for sequence in document for token in sequence]
            writer.add_document(flat, [len(sequence) for sequence in document])


def write_theirs(megatron, prefix: Path, vocab_size: int) -> None:
    dtype = megatron.DType.optimal_dtype(vocab_size)
    builder = megatron.IndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype)
    for document in documents(vocab_size):
        flat = [token for sequence in document for token in sequence]
        builder.add_document(flat, [len(sequence) for sequence in document])
    builder.finalize(f"{prefix}.idx")
