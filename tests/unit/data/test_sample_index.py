"""Where samples begin: megatron-core's compiled helper against ours, and any documents against a loop over tokens."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextlm.data.sample_index import epoch_index, index_type, num_samples, sample_begins


@pytest.fixture(scope="module")
def compiled() -> ModuleType:
    """megatron.core.datasets.helpers_cpp, loaded from its file: importing the package takes seconds."""
    package = importlib.util.find_spec("megatron")
    places = [] if package is None else [Path(place) for place in package.submodule_search_locations or ()]
    files = [file for place in places for file in place.glob("core/datasets/helpers_cpp*.so")]
    if not files:
        pytest.skip("megatron.core.datasets.helpers_cpp is not there")
    spec = importlib.util.spec_from_file_location("helpers_cpp", files[0])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=30),
    seq_length=st.integers(1, 50),
    seed=st.integers(0, 9),
)
def test_megatrons_compiled_helper_begins_its_samples_where_ours_do(compiled, lengths, seq_length, seed) -> None:
    lengths = np.array(lengths, np.int32)
    tokens = int(lengths.sum())
    if tokens <= seq_length:
        return
    order = np.random.default_rng(seed).permutation(len(lengths)).astype(np.int32)
    for name in ("build_sample_idx_int32", "build_sample_idx_int64"):
        theirs = getattr(compiled, name)(lengths, order, seq_length, 1, tokens, True, 1)
        places, offsets = sample_begins(lengths[order], seq_length)
        assert theirs[:-1].tolist() == np.stack([places, offsets], axis=1).tolist()  # the last is the end of the last


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=20),
    seq_length=st.integers(1, 40),
    seed=st.integers(0, 3),
    epoch=st.integers(0, 3),
)
def test_every_token_of_an_epoch_is_an_input_once_but_for_the_end(lengths, seq_length, seed, epoch) -> None:
    """The stream is written out; what is dropped is its last token and less than a sample."""
    bounds = np.concatenate(([0], np.cumsum(lengths)))
    index = epoch_index(bounds, seq_length, seed, epoch)
    assert sorted(index.documents.tolist()) == list(range(len(lengths)))
    stream = [(d, t) for d in index.documents.tolist() for t in range(lengths[d])]
    begins = [stream.index((index.documents[p], o)) for p, o in zip(index.places, index.offsets, strict=True)]
    inputs = sorted(position for begin in begins for position in range(begin, begin + seq_length))
    count = num_samples(sum(lengths), seq_length)
    assert inputs == list(range(count * seq_length))
    assert len(stream) - seq_length <= count * seq_length + 1 <= len(stream) or count == 0


def test_types_grow_with_the_numbers() -> None:
    assert (index_type(2**32 - 1), index_type(2**32)) == (np.dtype("<u4"), np.dtype("<i8"))
    places, offsets = sample_begins(np.array([3, 2**32, 5]), 2**30)
    assert offsets.dtype == np.dtype("<i8") and places.tolist() == [0, 1, 1, 1]
    assert offsets.tolist() == [0, 2**30 - 3, 2**31 - 3, 3 * 2**30 - 3]
    assert all(len(part) == 0 for part in sample_begins(np.array([], int), 4))
