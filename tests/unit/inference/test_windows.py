"""Windows predict every token once, with as much before it as they promise, and are lm_eval's where it has the same."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from contextlm.inference.windows import Window, scored, sliding_windows

PREFIX = 99
SIZES = [(20, 8, 8), (20, 8, 3), (21, 8, 1), (5, 8, 2), (8, 8, 8), (9, 8, 5)]


@pytest.mark.parametrize("prefix", [PREFIX, None])
@pytest.mark.parametrize(
    ("count", "length", "stride"), [(20, 8, 8), (20, 8, 3), (21, 8, 1), (5, 8, 2), (8, 8, 8), (9, 8, 5)]
)
def test_every_token_is_predicted_once(count, length, stride, prefix):
    tokens = list(range(count))
    given = tokens if prefix is None else [prefix, *tokens]
    predicted, windows = [], list(sliding_windows(tokens, prefix, length, stride))
    for number, (inputs, targets) in enumerate(windows):
        assert len(inputs) <= length
        end = given.index(targets[-1])
        assert inputs == given[end - len(inputs) : end] and targets == given[end + 1 - len(targets) : end + 1]
        if number:  # all windows but the first are full, and slide
            assert len(inputs) == length and len(targets) <= stride
        predicted += targets
    assert predicted == given[1:]


def test_a_text_of_one_token_has_nothing_before_it():
    assert list(sliding_windows([7], None, 8, 8)) == []
    assert list(sliding_windows([7], PREFIX, 8, 8)) == [Window([PREFIX], [7])]
    assert list(sliding_windows([], PREFIX, 8, 8)) == []


def test_a_stride_of_the_window_is_lm_evals_rolling_one():
    utils = pytest.importorskip("lm_eval.utils")
    for count in (1, 7, 8, 9, 30):
        tokens = list(range(count))
        theirs = utils.get_rolling_token_windows(tokens, PREFIX, max_seq_len=8, context_len=1)
        assert [tuple(window) for window in sliding_windows(tokens, PREFIX, 8, 8)] == [
            (list(context), list(targets)) for context, targets in theirs
        ]


def test_scores_are_those_of_the_targets_in_the_order_given():
    """A model that expects the next number with probability 1/2: padding and batches must not show."""

    def logits(ids_BS: torch.Tensor) -> torch.Tensor:
        logits_BSV = torch.zeros(*ids_BS.shape, 11)
        return logits_BSV.scatter(2, ((ids_BS + 1) % 11)[..., None], math.log(10))

    examined = SimpleNamespace(logits=logits)
    windows = [Window([1], [2]), Window([1, 2, 3, 4], [4, 5]), Window([5, 6], [0]), Window([1, 2, 3], [2, 9, 4])]
    for batch_size in (1, 3, 8):
        found = scored(examined, windows, batch_size)
        assert [one.is_likeliest for one in found] == [[True], [True, True], [False], [True, False, True]]
        for one in found:
            for value, likeliest in zip(one.log_probabilities, one.is_likeliest, strict=True):
                assert value == pytest.approx(math.log(0.5 if likeliest else 0.05))
