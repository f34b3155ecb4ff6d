"""Gradients are divided by the number of tokens, or the factor is noted (contextlm/megatron/token_scale.py)."""

from __future__ import annotations

import pytest
import torch

from tests.distributed.runs import small_run


def gradients(keeps_sums: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """All of one iteration, and the factor."""
    from contextlm.training.step import compute_gradients

    with small_run("gpt2", micro_batch_size=2, global_batch_size=4) as run:
        (part,) = run.model
        part.keeps_sums = keeps_sums
        batches = run.micro_batches(run.datasets.train, 0, 2)
        compute_gradients(run, batches)
        batches.close()
        assert part.gradient_factor.item() == pytest.approx(1 / (4 * run.config.model.seq_length))
        return part.buffers[0].grad_data.clone(), part.gradient_factor


def test_sums_are_kept_where_they_are_wanted():
    means, factor = gradients(keeps_sums=False)
    sums, _ = gradients(keeps_sums=True)
    assert means.abs().max() > 0 and torch.equal(sums * factor, means) and not torch.equal(sums, means)
