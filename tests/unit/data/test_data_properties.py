"""For any datasets: splits share out the documents, layouts, batch sizes, stops and caches change nothing."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextlm.config.schema import Config, DataConfig, ModelConfig, TrainingConfig
from contextlm.data import index_cache
from contextlm.data.blended_samples import BlendedSamples
from contextlm.data.datasets import build_datasets, split_documents
from contextlm.data.index_cache import IndexCache
from contextlm.data.indexed import IndexedDataset
from contextlm.data.indexed_writer import IndexedWriter
from contextlm.data.loader import micro_batches
from contextlm.data.samples import EpochSamples, Samples

LENGTHS = st.lists(st.integers(0, 25), min_size=1, max_size=15).filter(lambda lengths: sum(lengths) > 12)
SHARES = st.tuples(*[st.integers(0, 100)] * 3).filter(any)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def write(prefix: Path, lengths: list[int], first_id: int = 0) -> IndexedDataset:
    """Tokens first_id, first_id + 1, ..., in documents of these lengths."""
    with IndexedWriter(prefix, 100_000) as writer:
        for length in lengths:
            writer.add_document(range(first_id, first_id + length))
            first_id += length
    return IndexedDataset(prefix)


@settings(max_examples=40, deadline=None)
@given(lengths=LENGTHS, shares=SHARES)
def test_splits_share_out_the_documents(folder: Path, lengths: list[int], shares: tuple[int, ...]) -> None:
    """No token is in two splits, and each is in one, whatever is too little for a sample."""
    dataset = write(folder / "split", lengths)
    total, bounds = sum(shares), dataset.document_bounds
    parts = [split_documents(len(bounds) - 1, [share / total for share in shares], place) for place in range(3)]
    covered = [n for part in parts for n in range(*part.indices(len(bounds) - 1))]
    assert covered == list(range(len(bounds) - 1)) and len(covered) == sum(length > 0 for length in lengths)
    data = DataConfig(data_path=(dataset.prefix,), split=",".join(map(str, shares)))
    training = TrainingConfig(skip_train=True)
    datasets = build_datasets(Config(data=data, model=ModelConfig(seq_length=3), training=training), None)
    for part, samples in zip(parts, (datasets.train, datasets.validation, datasets.test), strict=True):
        own = set(range(int(bounds[part.start]), int(bounds[part.stop])))
        assert (samples is None) == (len(own) < 4)
        if samples is not None:
            tokens = np.concatenate([samples.sample(n) for n in range(samples.samples_per_epoch)])
            assert set(tokens.tolist()) <= own and len(set(tokens.tolist())) >= len(own) - 3


def blend(folder: Path, lengths: list[list[int]], seq_length: int) -> Samples:
    found = [
        EpochSamples(write(folder / f"blend{number}", each, 1000 * number), slice(None), seq_length, seed=7)
        for number, each in enumerate(lengths)
    ]
    return BlendedSamples(found, [1 + number for number in range(len(found))]) if len(found) > 1 else found[0]


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(LENGTHS, min_size=1, max_size=3),
    seq_length=st.integers(1, 12),
    layout=st.sampled_from([(b, d) for b in (1, 2, 3, 6, 12) for d in (1, 2, 3, 4, 6, 12) if 12 % (b * d) == 0]),
    start=st.integers(0, 5),
)
def test_layouts_sizes_of_batches_and_stops_change_nothing(folder: Path, lengths, seq_length, layout, start) -> None:
    """Batches of 12 samples, begun anew at any iteration, over several epochs."""
    samples = blend(folder, lengths, seq_length)
    batch, ranks = layout
    micro = 12 // (batch * ranks)
    whole = [samples.sample(n).tolist() for n in range(12 * 6)]
    for rank in range(ranks):
        loader = micro_batches(samples, 12 * start, batch, rank, ranks, micro, last_sample=12 * 6)
        found = [row for part in loader for row in part.tolist()]
        offsets = [12 * i + m * batch * ranks + rank * batch for i in range(start, 6) for m in range(micro)]
        assert found == [whole[offset + i] for offset in offsets for i in range(batch)]


@settings(max_examples=12, deadline=None)
@given(lengths=LENGTHS, seq_length=st.integers(1, 12), seed=st.integers(0, 5))
def test_a_cache_changes_nothing(folder: Path, lengths: list[int], seq_length: int, seed: int) -> None:
    plain = write(folder / "plain", lengths)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as made:
        patch.setattr(index_cache, "MEMORY_BYTES", 0)
        caches = [IndexCache(Path(made), lambda line: None) for _ in range(2)]
        kept = [
            EpochSamples(IndexedDataset(plain.prefix, cache), slice(None), seq_length, seed, cache=cache)
            for cache in caches
        ]
        expected = EpochSamples(plain, slice(None), seq_length, seed)
        for n in itertools.chain(range(3 * expected.samples_per_epoch), [0]):
            assert [each.sample(n).tolist() for each in kept] == [expected.sample(n).tolist()] * 2


@settings(max_examples=40, deadline=None)
@given(
    documents=st.lists(st.lists(st.lists(st.integers(0, 999), max_size=6), max_size=4), max_size=8),
    vocab_size=st.sampled_from([1000, 70_000]),
)
def test_what_is_written_is_read(folder: Path, documents: list[list[list[int]]], vocab_size: int) -> None:
    """Documents of any sequences, none of them and empty ones too."""
    with IndexedWriter(folder / "written", vocab_size) as writer:
        for sequences in documents:
            writer.add_document([i for sequence in sequences for i in sequence], [len(each) for each in sequences])
    dataset = IndexedDataset(folder / "written")
    sequences = [sequence for document in documents for sequence in document]
    assert [dataset.get(number).tolist() for number in range(len(sequences))] == sequences
    tokens = [i for sequence in sequences for i in sequence]
    assert dataset.tokens(0, len(tokens) + 5).tolist() == tokens
    ends = np.cumsum([0, *(sum(map(len, document)) for document in documents)])
    assert dataset.document_bounds.tolist() == sorted(set(ends.tolist()))
