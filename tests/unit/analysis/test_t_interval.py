"""The interval of paired differences: Student's quantiles, and how often it holds the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from contextlm.analysis.t_interval import interval, t_quantile


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [
        (1, 12.7062047),
        (2, 4.3026527),
        (3, 3.1824463),
        (4, 2.7764451),
        (9, 2.2621572),
        (30, 2.0422725),
        (121, 1.9797638),
    ],
)
def test_quantiles_are_the_tables(degrees, quantile):
    assert t_quantile(0.95, degrees) == pytest.approx(quantile, rel=1e-7)


def test_quantiles_are_scipys():
    stats = pytest.importorskip("scipy.stats")
    for degrees in range(1, 40):
        for confidence in (0.5, 0.9, 0.99):
            assert t_quantile(confidence, degrees) == pytest.approx(
                stats.t.ppf((1 + confidence) / 2, degrees), rel=1e-9
            )


def test_interval_by_hand():
    found = interval([-0.03, -0.05, -0.04])
    assert found.mean == pytest.approx(-0.04)
    assert found.half_width == pytest.approx(4.3026527 * 0.01 / math.sqrt(3))
    assert (found.low, found.high) == pytest.approx((-0.04 - found.half_width, -0.04 + found.half_width))


def test_it_holds_the_truth_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(0.3, 2.0, size=(4000, 3))
    holds = [found.low <= 0.3 <= found.high for found in map(interval, draws.tolist())]
    assert np.mean(holds) == pytest.approx(0.95, abs=0.012)
    # The control: the normal quantile would be too sure of three seeds.
    naive = [abs(found.mean - 0.3) <= found.half_width * 1.96 / 4.3026527 for found in map(interval, draws.tolist())]
    assert np.mean(naive) < 0.9


def test_one_seed_has_no_interval():
    with pytest.raises(ValueError, match="at least 2 seeds"):
        interval([0.1])
