"""Standard errors are as wide as the spread of repeated evaluations."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from contextlm.analysis.errors_of_means import loss_measures, ratio_and_error, share_and_error


def text(draw: random.Random) -> tuple[float, int]:
    """The loss and the tokens of a text: long texts are easier, and the tokens of a text go together."""
    count = draw.randint(5, 200)
    return count * (3 - count / 200 + draw.gauss(0, 0.4)), count


def test_the_error_of_a_loss_is_the_spread_of_losses():
    draw = random.Random(0)
    found = [ratio_and_error(*zip(*(text(draw) for _ in range(80)), strict=True)) for _ in range(400)]
    spread = statistics.stdev(ratio for ratio, _ in found)
    assert statistics.mean(error for _, error in found) == pytest.approx(spread, rel=0.1)
    # Were tokens independent draws, the error would be far too small.
    assert spread > 3 * 0.4 / math.sqrt(80 * 100)


def test_the_error_of_a_share_is_the_spread_of_shares():
    draw = random.Random(0)
    found = [share_and_error([draw.random() < 0.3 for _ in range(50)]) for _ in range(400)]
    assert statistics.mean(error for _, error in found) == pytest.approx(statistics.stdev(s for s, _ in found), rel=0.1)


def test_of_one_text_there_is_no_error():
    assert ratio_and_error([6.0], [3]) == (2.0, None) and share_and_error([True]) == (1.0, None)
    measures = loss_measures([6.0], [3], None)
    assert measures["lm_loss"] == 2.0 and measures["perplexity"] == pytest.approx(math.exp(2))
    assert measures["perplexity_stderr"] is None and measures["bits_per_byte"] is None and measures["bytes"] is None


def test_bits_per_byte_and_perplexity_follow_the_loss():
    measures = loss_measures([6.0, 1.0], [3, 2], [10, 4])
    assert measures["bits_per_byte"] == pytest.approx(7 / math.log(2) / 14)
    assert measures["perplexity_stderr"] == pytest.approx(measures["perplexity"] * measures["lm_loss_stderr"])
    assert (measures["tokens"], measures["bytes"], measures["texts"]) == (5, 14, 2)
