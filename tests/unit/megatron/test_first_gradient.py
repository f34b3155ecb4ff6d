"""The first micro-batch's gradients replace what is in the buffer (contextlm/megatron/first_gradient.py)."""

from __future__ import annotations

import pytest
import torch

from tests.distributed.runs import small_run

BATCH = {"micro_batch_size": 2, "global_batch_size": 4}


@pytest.fixture
def run():
    with small_run("gpt2", **BATCH) as run:
        yield run


def gradients(run) -> dict[str, torch.Tensor]:
    """Those of one iteration over the same two micro-batches."""
    from contextlm.training.step import compute_gradients

    batches = run.micro_batches(run.datasets.train, 0, 2)
    compute_gradients(run, batches)
    batches.close()
    return {name: p.main_grad.clone() for name, p in run.model[0].named_parameters()}


def test_an_iteration_forgets_the_one_before(run):
    first = gradients(run)
    for buffer in run.model[0].buffers:
        buffer.grad_data.fill_(torch.nan)
    second = gradients(run)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert all(value.abs().max() > 0 for name, value in first.items() if "context_head" not in name)


def test_a_parameter_without_a_gradient_has_zeros(run):
    gradients(run)
    run.model[0].zero_grad_buffer()
    run.model[0].finish_grad_sync()
    assert all(torch.count_nonzero(p.main_grad) == 0 for p in run.model[0].parameters())


def test_zeros_are_not_written_first(run, monkeypatch):
    gradients(run)
    before = run.model[0].buffers[0].grad_data.clone()
    run.model[0].zero_grad_buffer()
    assert torch.equal(run.model[0].buffers[0].grad_data, before) and before.abs().max() > 0
