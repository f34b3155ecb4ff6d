"""Blends: every prefix has the right proportions; where sample n comes from follows from weights and n."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextlm.data.blended_samples import BlendedSamples


class Numbered:
    """A source whose k-th sample says so."""

    def __init__(self, number: int, samples_per_epoch: int = 10**9) -> None:
        self.number = number
        self.samples_per_epoch = samples_per_epoch

    def sample(self, k: int) -> np.ndarray:
        return np.array([self.number, k])


def blend(weights: list[float], sizes: list[int] | None = None) -> BlendedSamples:
    sizes = sizes or [10**9] * len(weights)
    return BlendedSamples([cast(Any, Numbered(i, size)) for i, size in enumerate(sizes)], weights)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=12))
def test_every_prefix_keeps_the_proportions(weights: list[float]) -> None:
    samples = blend(weights)
    shares = np.array(weights) / sum(weights)
    counts = np.zeros(len(weights), dtype=int)
    for n in range(300):
        source, place = samples.sample(n).tolist()
        assert place == counts[source]  # the samples of a source come in order, none left out
        counts[source] += 1
        assert np.abs(counts - (n + 1) * shares).max() < 2
        assert samples.counts(n + 1) == counts.tolist()


@pytest.mark.parametrize("weights", [[0.5] + [0.5 / 99] * 99, [1.0] * 64, [0.99, 0.01], [0.618**k for k in range(20)]])
def test_hard_weights_keep_the_proportions(weights: list[float]) -> None:
    samples = blend(weights)
    shares = np.array(weights) / sum(weights)
    for n in (1, 2, 10, 49, 50, 99, 100, 101, 1000, 12_345, 10**9 + 7):
        counts = np.array(samples.counts(n))
        assert counts.sum() == n and np.abs(counts - n * shares).max() < 2


def test_far_samples_are_found_directly_and_agree_with_the_counts() -> None:
    samples = blend([0.3, 0.2, 0.5])
    for n in (10**6, 10**12, 10**15):
        source, place = samples.locate(n)
        before, after = samples.counts(n), samples.counts(n + 1)
        assert before[source] == place and after[source] == place + 1 and sum(after) == n + 1


def test_scaled_weights_are_the_same_blend() -> None:
    few, many = blend([1, 2, 4]), blend([0.25, 0.5, 1.0])
    assert [few.locate(n) for n in range(200)] == [many.locate(n) for n in range(200)]


def test_one_pass_ends_before_a_source_begins_again() -> None:
    samples = blend([0.5, 0.5], [10, 1000])
    assert samples.counts(samples.samples_per_epoch)[0] == 10
    assert samples.counts(samples.samples_per_epoch + 2)[0] == 11
    assert blend([30.0, 70.0, 7.0], [30, 70, 7]).samples_per_epoch == 107


@pytest.mark.parametrize("weights", [[], [1.0], [1.0, 0.0], [1.0, -1.0], [1.0, float("nan")]])
def test_bad_weights(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="datasets, weights"):
        BlendedSamples([cast(Any, Numbered(n)) for n in (0, 1)], weights)
