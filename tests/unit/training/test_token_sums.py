"""The sums of an evaluation are those of loops over tokens."""

from __future__ import annotations

import pytest
import torch

from contextlm.training.token_sums import LOSS_AND_TOKENS, TokenSums

LENGTHS = torch.tensor([0, 1, 2, 5])


@pytest.mark.parametrize(("length", "width"), [(8, 4), (10, 4), (3, 5), (7, 1)])
def test_sums_are_those_of_loops(length: int, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    loss_BS = torch.rand(3, length, generator=generator)
    labels_BS = torch.randint(4, (3, length), generator=generator)
    expected = [0.0] * (3 + width)
    for row, labels in zip(loss_BS.tolist(), labels_BS.tolist(), strict=True):
        for position, (loss, label) in enumerate(zip(row, labels, strict=True)):
            expected[0] += loss
            expected[1] += 1
            expected[2] += LENGTHS[label].item()
            expected[3 + position % width] += loss
    sums = TokenSums(LENGTHS, width)
    assert sums.of(loss_BS, labels_BS).tolist() == pytest.approx(expected, rel=1e-6)
    assert len(expected) == sums.size
    assert LOSS_AND_TOKENS.of(loss_BS, labels_BS).tolist() == pytest.approx([*expected[:2], 0], rel=1e-6)
