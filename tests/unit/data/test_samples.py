"""The order of samples: each epoch is a cover; data, seed and n decide; epochs and seeds differ."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contextlm.data.samples import EpochSamples
from contextlm.errors import UserError

ALL = slice(None)
LENGTHS = [5, 1, 17, 0, 8, 3, 40, 2, 2, 9]


@pytest.mark.parametrize("seq_length", [1, 4, 7, 30, 86])
def test_an_epoch_reads_every_token_of_its_stream_once(make_dataset, seq_length: int) -> None:
    """As inputs the samples of an epoch are disjoint; only a tail shorter than a sample is missing."""
    samples = EpochSamples(make_dataset(LENGTHS), ALL, seq_length, seed=1)
    total = sum(LENGTHS)
    assert samples.samples_per_epoch == (total - 1) // seq_length
    for epoch in range(3):
        first = epoch * samples.samples_per_epoch
        inputs = np.concatenate([samples.sample(first + i)[:-1] for i in range(samples.samples_per_epoch)])
        assert len(set(inputs.tolist())) == len(inputs) == samples.samples_per_epoch * seq_length


def test_samples_are_the_shuffled_documents_cut_in_order(make_dataset) -> None:
    """Rebuilt by hand: chaining the samples of an epoch gives whole documents, each in its own order."""
    samples = EpochSamples(make_dataset(LENGTHS), ALL, 4, seed=3)
    found = [samples.sample(i).tolist() for i in range(samples.samples_per_epoch)]
    followed = {sample[-1]: sample for sample in found}
    by_start = {sample[0]: sample for sample in found}
    start = next(sample for sample in found if sample[0] not in followed)
    stream = list(start)
    while stream[-1] in by_start:
        stream += by_start[stream[-1]][1:]
    assert len(stream) == samples.samples_per_epoch * 4 + 1
    bounds = np.cumsum([0] + LENGTHS)
    rest = stream
    while rest:
        document = int(np.searchsorted(bounds, rest[0], side="right")) - 1
        whole = list(range(bounds[document], bounds[document + 1]))
        assert rest[: len(whole)] == whole[: len(rest)]
        rest = rest[len(whole) :]


def test_order_depends_on_seed_epoch_and_nothing_asked_before(make_dataset) -> None:
    dataset = make_dataset(LENGTHS)
    samples = EpochSamples(dataset, ALL, 4, seed=5)
    count = 3 * samples.samples_per_epoch
    forward = [samples.sample(n).tolist() for n in range(count)]
    again = EpochSamples(dataset, ALL, 4, seed=5)
    assert [again.sample(n).tolist() for n in reversed(range(count))] == forward[::-1]
    other = EpochSamples(dataset, ALL, 4, seed=6)
    assert [other.sample(n).tolist() for n in range(count)] != forward
    epochs = np.array(forward).reshape(3, samples.samples_per_epoch, 5)
    assert not np.array_equal(epochs[0], epochs[1]) and not np.array_equal(epochs[1], epochs[2])


def test_order_is_frozen(make_dataset) -> None:
    """These very tokens: runs that exist continue on the data they began with."""
    samples = EpochSamples(make_dataset([10, 10, 10]), ALL, 6, seed=1234)
    assert [int(samples.sample(n)[0]) for n in range(5)] == [8, 16, 2, 10, 28]
    assert samples.sample(2**40).shape == (7,)


def test_only_the_given_documents_are_read(make_dataset) -> None:
    samples = EpochSamples(make_dataset(LENGTHS), slice(2, 5), 3, seed=1)
    tokens = np.concatenate([samples.sample(n) for n in range(20)])
    bounds = make_dataset([length for length in LENGTHS if length]).document_bounds
    assert samples.num_tokens == bounds[5] - bounds[2]
    assert tokens.min() >= bounds[2] and tokens.max() < bounds[5]


def test_samples_are_int64(make_dataset) -> None:
    sample = EpochSamples(make_dataset([20]), ALL, 8, seed=0).sample(0)
    assert sample.dtype == np.int64 and sample.shape == (9,)


def test_too_few_tokens(make_dataset) -> None:
    assert EpochSamples(make_dataset([9]), ALL, 8, seed=0).samples_per_epoch == 1
    with pytest.raises(ValueError, match="8 tokens, a sample needs 9"):
        EpochSamples(make_dataset([8]), ALL, 8, seed=0)
    with pytest.raises(ValueError, match="0 tokens"):
        EpochSamples(make_dataset([8]), slice(1, 1), 8, seed=0)
    with pytest.raises(IndexError):
        EpochSamples(make_dataset([9]), ALL, 8, seed=0).sample(-1)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(0, 30), min_size=1, max_size=12), seq_length=st.integers(1, 20))
def test_cover_for_any_lengths(make_dataset, lengths: list[int], seq_length: int) -> None:
    if sum(lengths) <= seq_length:
        return
    samples = EpochSamples(make_dataset(lengths), ALL, seq_length, seed=7)
    inputs = np.concatenate([samples.sample(n)[:-1] for n in range(samples.samples_per_epoch)])
    assert len(np.unique(inputs)) == len(inputs) > sum(lengths) - 1 - seq_length


def test_samples_of_a_single_document_are_shuffled_anew_each_epoch(make_dataset) -> None:
    samples = EpochSamples(make_dataset([100]), ALL, 4, seed=1)
    epochs = np.array([samples.sample(n)[0] for n in range(3 * samples.samples_per_epoch)]).reshape(3, -1)
    assert all(sorted(epoch) == list(range(0, 96, 4)) != epoch.tolist() for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 3


def test_an_id_outside_the_vocabulary_is_found_in_its_sample(make_dataset) -> None:
    """Also in the middle of a dataset that is too large to be read before training."""
    dataset = make_dataset(LENGTHS)  # the ids are 0, 1, ...
    good = EpochSamples(dataset, ALL, 4, seed=1, vocab_size=sum(LENGTHS))
    bad = EpochSamples(dataset, ALL, 4, seed=1, vocab_size=sum(LENGTHS) - 40)
    refused = 0
    for n in range(good.samples_per_epoch):
        sample = good.sample(n)
        if sample.max() < sum(LENGTHS) - 40:
            assert (bad.sample(n) == sample).all()
            continue
        refused += 1
        with pytest.raises(UserError, match=f"sample {n} holds token id {sample.max()}, outside the vocabulary of 47"):
            bad.sample(n)
    assert 0 < refused < good.samples_per_epoch
