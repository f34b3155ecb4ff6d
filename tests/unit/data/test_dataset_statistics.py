"""Counts and histograms of a dataset, against a count by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from contextlm.data.dataset_statistics import dataset_statistics, histogram, histogram_lines, histogram_svg
from contextlm.data.indexed_writer import IndexedWriter


def test_documents_of_several_sequences_and_empty_ones(tmp_path: Path) -> None:
    with IndexedWriter(tmp_path / "data", 300) as writer:
        for lengths in ([3], [], [2, 2], [1], []):
            writer.add_document(range(sum(lengths)), lengths)
    one = dataset_statistics(str(tmp_path / "data"))
    assert one.lengths.tolist() == [3, 0, 4, 1, 0] and one.tokens == 8
    assert one.lines()[0].endswith("8 tokens, 5 documents, 2 of them empty")


def test_the_histogram_counts_every_document_once() -> None:
    lengths = np.array([0, 0, 1, 2, 3, 4, 7, 8, 1024])
    counts, edges = histogram(lengths)
    by_hand = [
        np.count_nonzero((lengths >= low) & (lengths < high)) for low, high in zip(edges, edges[1:], strict=False)
    ]
    assert counts.tolist() == by_hand and counts.sum() == len(lengths)
    assert edges.tolist() == [0] + [2**i for i in range(12)]
    assert histogram_lines(np.array([2, 3, 9]))[1:] == [
        "   2-3  2 ########################################",
        "   4-7  0",
        "  8-15  1 ####################",
    ]
    assert histogram_lines(np.zeros(0, np.int64)) == ["tokens  documents", "     0  0"]


def test_the_picture_shows_each_dataset(tmp_path: Path) -> None:
    for name, lengths in (("short", [1, 2]), ("long", [500])):
        with IndexedWriter(tmp_path / name, 600) as writer:
            for length in lengths:
                writer.add_document(range(length))
    picture = histogram_svg([dataset_statistics(str(tmp_path / name)) for name in ("short", "long")])
    assert picture.startswith("<svg") and "short" in picture and "long" in picture and "512" in picture
