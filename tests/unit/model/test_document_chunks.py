"""Chunks that begin with each document, against a loop over positions, values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from contextlm.model.document_chunks import DocumentChunks
from contextlm.model.documents import Documents
from tests.unit.model.test_chunking import parts, values_and_gradient

CHUNK_SIZES = (1, 2, 3, 4, 5, 8)
POOLINGS = ("mean", "last", "first")
HIDDEN = 3
# Documents of each sample of a batch: they begin in every phase, are shorter than a chunk, or of whole chunks.
SAMPLES = (
    [24],
    [4, 8, 12],
    [1, 1, 1, 21],
    [3, 2, 1, 3, 2, 1, 3, 2, 1, 3, 2, 1],
    [13, 11],
    [7, 1, 9, 7],
    [1] * 24,
    [23, 1],
)
LENGTH = 24


def documents(isolated: bool = True) -> Documents:
    positions = torch.tensor([[place for length in lengths for place in range(length)] for lengths in SAMPLES])
    return Documents(positions, isolated)


def chunks_of(lengths: list[int], chunk_size: int) -> list[list[int]]:
    """The tokens of each complete chunk of a sample, one document after the other."""
    chunks, begin = [], 0
    for length in lengths:
        for start in range(begin, begin + length - chunk_size + 1, chunk_size):
            chunks.append(list(range(start, start + chunk_size)))
        begin += length
    return chunks


def naive_pool(hidden_SBH: Tensor, chunk_size: int, pooling: str) -> Tensor:
    contexts = []
    for row, lengths in enumerate(SAMPLES):
        own = []
        for chunk in chunks_of(lengths, chunk_size):
            states = [hidden_SBH[token, row] for token in chunk]
            own.append({"mean": sum(states) / chunk_size, "last": states[-1], "first": states[0]}[pooling])
        own += [torch.zeros(HIDDEN)] * (LENGTH // chunk_size - len(own))
        contexts.append(torch.stack(own))
    return torch.stack(contexts, dim=1)


def naive_spread(prediction_CBH: Tensor, chunk_size: int, shift: bool) -> Tensor:
    received = []
    for row, lengths in enumerate(SAMPLES):
        own, before = [], 0
        for length in lengths:
            for place in range(length):
                index = ((place + 1) // chunk_size if shift else place // chunk_size) - 1
                own.append(prediction_CBH[before + index, row] if index >= 0 else torch.zeros(HIDDEN))
            before += length // chunk_size
        received.append(torch.stack(own))
    return torch.stack(received, dim=1)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
def test_pool(chunk_size: int, pooling: str) -> None:
    chunks, hidden = DocumentChunks(documents(), chunk_size), torch.randn(LENGTH, len(SAMPLES), HIDDEN)
    actual, gradient = values_and_gradient(chunks.pool, hidden, pooling)
    expected, expected_gradient = values_and_gradient(naive_pool, hidden, chunk_size, pooling)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(gradient, expected_gradient)
    counts = [len(chunks_of(lengths, chunk_size)) for lengths in SAMPLES]
    assert chunks.is_chunk_CB.T.tolist() == [[k < count for k in range(LENGTH // chunk_size)] for count in counts]


@pytest.mark.parametrize("shift", [True, False], ids=["shift", "no_shift"])
@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
def test_spread(chunk_size: int, shift: bool) -> None:
    chunks, prediction = (
        DocumentChunks(documents(), chunk_size),
        torch.randn(LENGTH // chunk_size, len(SAMPLES), HIDDEN),
    )
    actual, gradient = values_and_gradient(chunks.spread, prediction, LENGTH, shift)
    expected, expected_gradient = values_and_gradient(naive_spread, prediction, chunk_size, shift)
    assert torch.equal(actual, expected)
    torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
def test_the_parts_of_a_sequence_make_up_the_whole(chunk_size: int) -> None:
    chunks, hidden = DocumentChunks(documents(), chunk_size), torch.randn(LENGTH, len(SAMPLES), HIDDEN)
    prediction = torch.randn(LENGTH // chunk_size, len(SAMPLES), HIDDEN)
    for num_parts in (2, 3, 4, 8):
        pieces = parts(LENGTH, num_parts)
        for pooling in POOLINGS:
            shares = [chunks.pool(hidden[piece], pooling, piece.start) for piece in pieces]
            torch.testing.assert_close(sum(shares), naive_pool(hidden, chunk_size, pooling))
        for shift in (True, False):
            found = [chunks.spread(prediction, LENGTH // num_parts, shift, piece.start) for piece in pieces]
            assert torch.equal(torch.cat(found), naive_spread(prediction, chunk_size, shift))


@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
def test_a_chunk_sees_the_chunks_of_its_document_and_stands_at_its_first_token(chunk_size: int) -> None:
    chunks = DocumentChunks(documents(), chunk_size)
    angles = torch.arange(float(LENGTH * len(SAMPLES))).view(LENGTH, len(SAMPLES), 1, 1)
    mask, found = chunks.documents().mask_B1SS[:, 0], chunks.angles(angles)
    for row, lengths in enumerate(SAMPLES):
        own = chunks_of(lengths, chunk_size)
        owners = [document for document, length in enumerate(lengths) for _ in range(length // chunk_size)]
        for k in range(LENGTH // chunk_size):
            seen = {k} if k >= len(own) else {j for j in range(k + 1) if owners[j] == owners[k]}
            assert set(mask[row, k].nonzero().flatten().tolist()) == seen
        assert found[: len(own), row, 0, 0].tolist() == [angles[chunk[0], row].item() for chunk in own]
    assert DocumentChunks(documents(isolated=False), chunk_size).documents() is None


def test_what_is_not_in_a_chunk_reaches_none() -> None:
    """Not even a NaN."""
    hidden = torch.full((LENGTH, len(SAMPLES), HIDDEN), torch.nan)
    for row, lengths in enumerate(SAMPLES):
        hidden[[token for chunk in chunks_of(lengths, 4) for token in chunk], row] = 1.0
    assert not DocumentChunks(documents(), 4).pool(hidden, "mean").isnan().any()
