"""Chunk maths against a loop over positions, values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from contextlm.model.chunking import pool, spread

CHUNK_SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 16)
LENGTHS = range(1, 34)
POOLINGS = ("mean", "last", "first")
BATCH, HIDDEN = 2, 3


def naive_pool(hidden_SBH: Tensor, chunk_size: int, pooling: str) -> Tensor:
    """The pooled complete chunks, one after the other."""
    contexts = []
    for start in range(0, hidden_SBH.shape[0] - chunk_size + 1, chunk_size):
        states = [hidden_SBH[position] for position in range(start, start + chunk_size)]
        contexts.append({"mean": sum(states) / chunk_size, "last": states[-1], "first": states[0]}[pooling])
    return torch.stack(contexts) if contexts else hidden_SBH[:0]


def naive_spread(prediction_CBH: Tensor, sequence_length: int, chunk_size: int, shift: bool) -> Tensor:
    """The prediction of each position, one after the other."""
    received = []
    for position in range(sequence_length):
        index = ((position + 1) // chunk_size if shift else position // chunk_size) - 1
        received.append(prediction_CBH[index] if index >= 0 else torch.zeros(prediction_CBH.shape[1:]))
    return torch.stack(received)


def values_and_gradient(function, source: Tensor, *arguments) -> tuple[Tensor, Tensor]:
    """What `function` makes of `source`, and the gradient of a weighted sum of it."""
    leaf = source.clone().requires_grad_()
    result = function(leaf, *arguments)
    weights = torch.arange(1.0, result.numel() + 1).reshape(result.shape)
    # The zero keeps the graph where nothing of `source` is in the result.
    ((result * weights).sum() + 0 * leaf.sum()).backward()
    return result.detach(), leaf.grad


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
def test_pool(chunk_size, pooling):
    for length in LENGTHS:
        hidden = torch.randn(length, BATCH, HIDDEN)
        actual, gradient = values_and_gradient(pool, hidden, chunk_size, pooling)
        expected, expected_gradient = values_and_gradient(naive_pool, hidden, chunk_size, pooling)
        assert actual.shape == (length // chunk_size, BATCH, HIDDEN)
        torch.testing.assert_close(actual, expected)
        torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("shift", [True, False], ids=["shift", "no_shift"])
@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
def test_spread(chunk_size, shift):
    for length in LENGTHS:
        prediction = torch.randn(length // chunk_size, BATCH, HIDDEN)
        arguments = (length, chunk_size, shift)
        actual, gradient = values_and_gradient(spread, prediction, *arguments)
        expected, expected_gradient = values_and_gradient(naive_spread, prediction, *arguments)
        assert torch.equal(actual, expected), length
        torch.testing.assert_close(gradient, expected_gradient)


def parts(length: int, num_parts: int) -> list[slice]:
    """Consecutive tokens of equal number, as the ranks of sequence parallelism hold them."""
    size = length // num_parts
    return [slice(part * size, (part + 1) * size) for part in range(num_parts)]


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
def test_the_shares_of_the_parts_of_a_sequence_sum_up_to_its_contexts(chunk_size, pooling):
    """Also where a chunk lies on two parts, or on more than two, or a part has no complete chunk."""
    for num_parts in (2, 3, 4, 8):
        for length in range(num_parts, 49, num_parts):
            hidden = torch.randn(length, BATCH, HIDDEN)
            shares = [pool(hidden[p], chunk_size, pooling, p.start, length) for p in parts(length, num_parts)]
            torch.testing.assert_close(sum(shares), naive_pool(hidden, chunk_size, pooling))


@pytest.mark.parametrize("shift", [True, False], ids=["shift", "no_shift"])
@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
def test_the_parts_of_a_sequence_receive_what_the_whole_does(chunk_size, shift):
    for num_parts in (2, 3, 4, 8):
        for length in range(num_parts, 49, num_parts):
            prediction = torch.randn(length // chunk_size, BATCH, HIDDEN)
            size = length // num_parts
            found = [spread(prediction, size, chunk_size, shift, p.start) for p in parts(length, num_parts)]
            assert torch.equal(torch.cat(found), naive_spread(prediction, length, chunk_size, shift)), length


def received(length: int, shift: bool) -> list[int | None]:
    """Which prediction each token receives when chunks have 4 tokens; None is zero."""
    prediction = torch.arange(1.0, length // 4 + 1).reshape(-1, 1, 1)
    return [int(value) - 1 if value else None for value in spread(prediction, length, 4, shift).flatten()]


def test_the_table_of_the_method():
    """docs/method.md, w = 4: tokens 0..2 get zero, 3..6 prediction 0, 7..10 prediction 1."""
    assert received(13, shift=True) == [None] * 3 + [0] * 4 + [1] * 4 + [2] * 2
    assert received(13, shift=False) == [None] * 4 + [0] * 4 + [1] * 4 + [2]
    assert received(8, shift=True) == [None] * 3 + [0] * 4 + [1]
    assert received(8, shift=False) == [None] * 4 + [0] * 4


def test_trailing_tokens_are_not_pooled_but_guided():
    hidden = torch.randn(11, BATCH, HIDDEN)
    changed = hidden.clone()
    changed[8:] = 99
    assert torch.equal(pool(hidden, 4, "mean"), pool(changed, 4, "mean"))
    prediction = torch.randn(2, BATCH, HIDDEN)
    for position in (8, 9, 10):
        assert torch.equal(spread(prediction, 11, 4, True)[position], prediction[1])


def test_no_complete_chunk():
    hidden = torch.randn(3, BATCH, HIDDEN)
    contexts = pool(hidden, 4, "mean")
    assert contexts.shape == (0, BATCH, HIDDEN)
    assert torch.equal(spread(contexts, 3, 4, True), torch.zeros(3, BATCH, HIDDEN))


def test_type_and_layout_are_kept():
    hidden = torch.randn(HIDDEN, BATCH, 12, dtype=torch.bfloat16).permute(2, 1, 0)
    contexts = pool(hidden, 4, "mean")
    assert contexts.dtype == torch.bfloat16
    assert spread(contexts, 12, 4, True).dtype == torch.bfloat16
