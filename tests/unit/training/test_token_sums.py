"""The sums of an evaluation are those of loops over tokens."""

from __future__ import annotations

import pytest
import torch

from contextlm.model.documents import Documents
from contextlm.model.token_batch import Inputs, TokenBatch
from contextlm.training.token_sums import LOSS_AND_TOKENS, TokenSums

LENGTHS = torch.tensor([0, 1, 2, 5])
EOD = 3


@pytest.mark.parametrize("scored", ["all", "some", "none"])
@pytest.mark.parametrize("in_documents", [False, True], ids=["one_grid", "documents"])
@pytest.mark.parametrize(("length", "width"), [(8, 4), (10, 4), (3, 5), (7, 1)])
def test_sums_are_those_of_loops(length: int, width: int, in_documents: bool, scored: str) -> None:
    generator = torch.Generator().manual_seed(0)
    loss_BS = torch.rand(3, length, generator=generator)
    labels_BS, tokens_BS = torch.randint(4, (2, 3, length), generator=generator)
    counts_BS = {"all": torch.ones_like(loss_BS), "some": tokens_BS != EOD, "none": torch.zeros_like(loss_BS)}[scored]
    expected = [0.0] * (3 + 2 * width)
    for row in range(3):
        place = 0
        for position in range(length):
            if counts_BS[row, position]:
                loss = loss_BS[row, position].item()
                expected[0] += loss
                expected[1] += 1
                expected[2] += LENGTHS[labels_BS[row, position]].item()
                expected[3 + place % width] += loss
                expected[3 + width + place % width] += 1
            place = 0 if in_documents and tokens_BS[row, position] == EOD else place + 1
    documents = Documents.of(tokens_BS, EOD, isolated=True) if in_documents else None
    batch = TokenBatch(
        Inputs(tokens_BS, tokens_BS, documents), labels_BS, None if scored == "all" else counts_BS.bool()
    )
    sums = TokenSums(LENGTHS, width)
    assert sums.of(loss_BS, batch).tolist() == pytest.approx(expected, rel=1e-6)
    assert len(expected) == sums.size
    assert LOSS_AND_TOKENS.of(loss_BS, batch).tolist() == pytest.approx([*expected[:2], 0], rel=1e-6)
