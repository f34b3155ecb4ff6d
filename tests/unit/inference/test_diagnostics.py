"""The geometry of predictions: what is known of made-up ones."""

from __future__ import annotations

import pytest
import torch

from contextlm.inference.diagnostics import Chunks, Spread


def test_effective_rank_counts_directions():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.zeros(4000, 16)
    vectors[:, :5] = torch.randn(4000, 5, generator=generator)
    spread = Spread()
    for part in (vectors + 7).split(1000):  # where they are does not matter, nor in how many pieces they come
        spread.add(part)
    assert spread.effective_rank() == pytest.approx(5, rel=0.01)
    vectors[:, 1:] *= 1e-3
    collapsed = Spread()
    collapsed.add(vectors)
    assert collapsed.effective_rank() == pytest.approx(1, abs=0.01)


def test_cosines_are_with_the_chunk_that_follows():
    context_CBH = torch.randn(6, 3, 8, generator=torch.Generator().manual_seed(1))
    perfect = torch.cat((context_CBH[1:], torch.zeros(1, 3, 8)))
    seen = Chunks()
    assert seen(context_CBH, perfect) is perfect
    measures = seen.measures()
    assert measures["cosine_prediction_next_chunk"] == pytest.approx(1)
    assert abs(measures["cosine_present_chunk_next_chunk"]) < 0.5
    assert measures["vectors"] == 18
