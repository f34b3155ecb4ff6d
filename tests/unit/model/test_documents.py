"""Where documents begin, and what follows: megatron-core's own function, and loops over positions."""

from __future__ import annotations

import itertools

import pytest
import torch

from contextlm.model.documents import Documents, bounds_of
from contextlm.model.token_batch import DocumentEnds

EOD = 3
LENGTH = 17
OPTIONS = ("reset_position_ids", "reset_attention_mask", "eod_mask_loss")


def samples(batch_size: int = 60) -> torch.Tensor:
    """Samples [B, S + 1] with from none to many ends, also first, last, and one after the other."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(50, (batch_size, LENGTH + 1), generator=generator)
    share = torch.rand(batch_size, 1, generator=generator) ** 2
    ends = torch.rand(tokens.shape, generator=generator) < share
    tokens[ends] = EOD
    tokens[0], tokens[1], tokens[2, 0], tokens[2, -2] = 5, EOD, EOD, EOD
    return tokens


@pytest.mark.parametrize("given", list(itertools.product((False, True), repeat=3)))
def test_positions_mask_and_loss_are_megatrons(layout, given: tuple[bool, ...]) -> None:
    from megatron.core.datasets.gpt_dataset import _get_ltor_masks_and_position_ids

    tokens = samples()
    batch = DocumentEnds(EOD, **dict(zip(OPTIONS, given, strict=True))).batch(tokens, torch.device("cpu"))
    documents = batch.inputs.documents
    assert (documents is None) == (not given[0] and not given[1])
    scored = torch.ones_like(batch.labels_BS, dtype=torch.bool) if batch.scored_BS is None else batch.scored_BS
    causal = torch.ones(LENGTH, LENGTH).tril().bool()
    for row, sample in enumerate(tokens):
        hidden, counts, positions = _get_ltor_masks_and_position_ids(
            sample[:-1], EOD, *given, create_attention_mask=True
        )
        seen = documents.mask_B1SS[row, 0] if documents is not None and documents.isolated else causal
        assert torch.equal(batch.inputs.positions_BS[row], positions)
        assert torch.equal(seen, ~hidden[0])
        assert torch.equal(scored[row].float(), counts)


def test_bounds_are_those_of_a_loop() -> None:
    tokens = samples()[:, :-1]
    expected = []
    for row, sample in enumerate(tokens.tolist()):
        for position in range(LENGTH):
            if position == 0 or sample[position - 1] == EOD:
                expected.append(row * LENGTH + position)
    assert bounds_of(tokens, EOD).tolist() == [*expected, tokens.numel()]
    assert bounds_of(tokens, EOD).dtype == torch.int32
    positions = Documents.of(tokens, EOD, isolated=True).positions_BS.flatten()
    assert (positions == 0).nonzero().flatten().tolist() == expected


def test_the_end_belongs_to_the_document_that_it_ends() -> None:
    documents = Documents.of(torch.tensor([[5, EOD, 6, 7, EOD, EOD, 8]]), EOD, isolated=True)
    assert documents.positions_BS.tolist() == [[0, 1, 0, 1, 2, 0, 0]]
    assert documents.mask_B1SS[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0, 0],
        [0, 0, 1, 1, 0, 0, 0],
        [0, 0, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 1],
    ]
