"""Gradients that stay where autograd leaves them (contextlm/training/unbuffered.py)."""

from __future__ import annotations

import pytest
import torch

from contextlm.config.unbuffered import adds_nothing_up
from tests.distributed.runs import small_run
from tests.small_configs import small_config

ONE = {"bf16": True, "micro_batch_size": 2, "global_batch_size": 2}


@pytest.mark.parametrize(
    "more, num_ranks",
    [
        ({"bf16": False}, 1),
        ({"global_batch_size": 4}, 1),
        ({"global_batch_size": 4}, 2),
        ({"global_batch_size": 4, "rampup_batch_size": (2, 2, 8)}, 1),
        ({"overlap_grad_reduce": True, "overlap_param_gather": True}, 1),
    ],
)
def test_a_buffer_is_needed(more, num_ranks):
    assert adds_nothing_up(small_config(**ONE), 1)
    assert not adds_nothing_up(small_config(**(ONE | more)), num_ranks)


@pytest.mark.parametrize("distributed", [True, False])
def test_they_are_those_of_the_buffer(distributed):
    from contextlm.training.step import compute_gradients
    from contextlm.training.unbuffered import leave_gradients, without_buffers

    with small_run("gpt2", **ONE, use_distributed_optimizer=distributed) as run:
        assert not without_buffers(run.config, 1, run.runtime.device)  # torch's AdamW could not read them
        run.model[0].keeps_sums = True

        def sums() -> None:
            batches = run.micro_batches(run.datasets.train, 0, 1)
            compute_gradients(run, batches)
            batches.close()

        sums()
        (optimizer,) = run.optimizer.chained_optimizers
        weights = dict(run.language_model[0].named_parameters())
        expected = {name: weight.main_grad.clone() for name, weight in weights.items()}
        leave_gradients(run.model, run.optimizer)
        assert run.model[0].buffers[0].grad_data.untyped_storage().nbytes() == 0
        for _ in range(2):  # the second iteration forgets the first
            sums()
        assert all(torch.equal(weights[name].grad.float(), value) for name, value in expected.items())
        assert all(value.abs().max() > 0 for name, value in expected.items() if "context_head" not in name)
        adamw = optimizer.optimizer
        found = {id(adamw.gradient(master)) for master in optimizer.get_parameters()}
        assert found == {id(weight.grad) for weight in weights.values()}
