"""Linear layers of one tensor-parallel rank: megatron-core's numbers, torch's product (contextlm/model/linear.py)."""

from __future__ import annotations

import pytest
import torch

from tests.small_configs import BACKBONES, small_config
from tests.unit.model.forward import run, token_ids
from tests.unit.model.linear_paths import take_the_way_of_shared_matrices

PYTHON_FUNCTION = "LinearWithGradAccumulationAndAsyncCommunicationBackward"


def loss_and_gradients(model: torch.nn.Module) -> tuple[list[torch.Tensor], int]:
    """The loss and the gradients of all weights; how many products went through the autograd function in Python."""
    tokens = token_ids(2, 23)
    model.zero_grad()
    with torch.profiler.profile() as profile:
        loss = run(model, tokens[:, :-1], tokens[:, 1:].contiguous()).mean()
        loss.backward()
    calls = sum(event.count for event in profile.key_averages() if event.key == PYTHON_FUNCTION)
    return [loss.detach(), *(parameter.grad for parameter in model.parameters())], calls


@pytest.mark.parametrize("backbone", BACKBONES)
def test_numbers_are_those_of_megatron_core(build, monkeypatch, backbone):
    model = build(small_config(backbone))
    found, calls = loss_and_gradients(model)
    take_the_way_of_shared_matrices(monkeypatch)
    expected, stock_calls = loss_and_gradients(model)
    for ours, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, reference)
    # Four products a layer, four layers and two of the predictor; the output layer is megatron-core's own.
    assert (calls, stock_calls) == (1, 1 + 4 * (4 + 2))
