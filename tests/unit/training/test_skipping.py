"""What is a spike, what is remembered of it, and which of several reasons counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.small_configs import small_config


@pytest.fixture
def spikes(layout):
    from contextlm.training.spikes import Spikes

    return Spikes(torch.device("cpu"))


def pairs(number: int, seed: int = 0) -> np.ndarray:
    """Losses and gradient norms, [number, 2]."""
    return np.random.default_rng(seed).normal((4.0, 1.0), (0.1, 0.3), (number, 2))


def seen(pair: np.ndarray) -> torch.Tensor:
    return torch.tensor(pair, dtype=torch.float64)


def test_a_spike_is_six_sigma_above_the_last_128(spikes):
    history = pairs(300)
    for number, pair in enumerate(history):
        if number >= 64:
            last = history[max(0, number - 128) : number]
            threshold = last.mean(axis=0) + 6 * last.std(axis=0, ddof=1)
            below, above = threshold - 1e-6, threshold + 1e-6
            assert spikes.among(seen(below)).tolist() == [False, False]
            assert spikes.among(seen(above)).tolist() == [True, True]
            assert spikes.among(seen(np.array([above[0], 0.0]))).tolist() == [True, False]
        spikes.keep(seen(pair), torch.tensor(True))
    assert spikes.count.item() == 300


def test_nothing_is_a_spike_before_there_are_64(spikes):
    for pair in pairs(63):
        spikes.keep(seen(pair), torch.tensor(True))
    assert spikes.among(seen(np.array([1e9, 1e9]))).tolist() == [False, False]
    spikes.keep(seen(pairs(1)[0]), torch.tensor(True))
    assert spikes.among(seen(np.array([1e9, 1e9]))).tolist() == [True, True]


def test_what_was_skipped_is_not_remembered(spikes):
    for pair in pairs(200):
        spikes.keep(seen(pair), torch.tensor(True))
    before = {name: tensor.clone() for name, tensor in spikes.state().items()}
    spikes.keep(torch.tensor([torch.inf, 1e9], dtype=torch.float64), torch.tensor(False))
    assert all(torch.equal(tensor, before[name]) for name, tensor in spikes.state().items())


def skipping(layout, **values):
    from contextlm.training.skipping import Skipping

    return Skipping(small_config(**values), torch.device("cpu"))


def why(rule, loss: float, norm: float, iteration: int = 1) -> str:
    from contextlm.training.skipping import Why

    return Why(int(rule.why(iteration, torch.tensor(loss).double(), torch.tensor(norm).double()))).word


def test_the_graver_reason_counts(layout):
    nan, inf = float("nan"), float("inf")
    rule = skipping(layout, skip_spikes=True, iterations_to_skip=("3",))
    assert [why(rule, *pair) for pair in ((4.0, 1.0), (nan, 1.0), (4.0, inf), (-inf, nan))] == [
        "updated",
        "nan loss",
        "nan norm",
        "nan loss",
    ]
    assert why(rule, 4.0, 1.0, iteration=3) == "told" and why(rule, 4.0, nan, iteration=3) == "nan norm"
    for pair in pairs(100):
        why(rule, *pair)
    assert why(rule, 40.0, 1.0) == why(rule, 40.0, 90.0) == "loss spike" and why(rule, 4.0, 90.0) == "norm spike"
    assert why(rule, nan, 90.0) == "nan loss" and why(rule, 4.0, 1.0) == "updated"


def test_without_the_check_only_what_is_told_is_skipped(layout):
    rule = skipping(layout, check_for_nan_in_loss_and_grad=False, iterations_to_skip=("3",))
    assert why(rule, float("nan"), 1.0) == "updated" and why(rule, float("nan"), 1.0, iteration=3) == "told"
