"""The largest logit is found without its place (contextlm/megatron/logits_max.py)."""

from __future__ import annotations

import torch
from torch.profiler import profile


def test_it_is_the_largest_and_its_place_is_not_looked_for(layout):
    from megatron.core.tensor_parallel.cross_entropy import VocabParallelCrossEntropy

    logits = torch.randn(3, 2, 40, generator=torch.Generator().manual_seed(1))
    logits[0, 0, 5], logits[1, 1, 7] = float("nan"), float("inf")
    logits[..., 30:] = float("-inf")
    with profile() as recorded:
        _, found = VocabParallelCrossEntropy.calculate_logits_max(logits)
    torch.testing.assert_close(found, logits.max(dim=-1).values, rtol=0, atol=0, equal_nan=True)
    operations = {event.key for event in recorded.key_averages()}
    assert "aten::amax" in operations and "aten::max" not in operations
