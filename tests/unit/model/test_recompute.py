"""Recomputation gives the gradients of the same model without it, where megatron-core's own does not end well."""

from __future__ import annotations

import pytest
import torch

from tests.small_configs import small_config
from tests.unit.model.forward import token_ids

SELECTIVE = {"recompute_granularity": "selective"}
FULL = {"recompute_granularity": "full", "recompute_method": "uniform"}


def gradients(build, backbone, **values):
    """The gradients of every parameter in training mode."""
    model = build(small_config(backbone, **values)).train()
    ids = token_ids(2, 10)
    positions = torch.arange(10).expand_as(ids)
    model(ids, positions, None, labels=ids.roll(-1, 1)).sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("backbone", ["gpt2", "pythia"])
@pytest.mark.parametrize(
    "recompute",
    [
        SELECTIVE | {"recompute_modules": ("core_attn",)},
        SELECTIVE | {"recompute_modules": ("mlp",)},
        SELECTIVE | {"recompute_modules": ("core_attn", "mlp")},
        *(FULL | {"recompute_num_layers": layers} for layers in (1, 2, 3, 4, 5)),
        FULL | {"recompute_method": "block", "recompute_num_layers": 1},
    ],
    ids=lambda values: "-".join(map(str, values.values())),
)
def test_gradients_are_the_same_bits(build, backbone, recompute):
    expected, found = gradients(build, backbone), gradients(build, backbone, **recompute)
    assert expected.keys() == found.keys()
    assert [name for name, gradient in expected.items() if not torch.equal(gradient, found[name])] == []


def test_stop_gradient_and_recomputation(build):
    stop = {"context_stop_gradient": True}
    expected, found = gradients(build, "gpt2", **stop), gradients(build, "gpt2", recompute_num_layers=2, **FULL, **stop)
    assert all(torch.equal(gradient, found[name]) for name, gradient in expected.items())
    plain = gradients(build, "gpt2")
    assert any(not torch.equal(gradient, expected[name]) for name, gradient in plain.items())


def test_a_parameter_comes_back_as_itself(layout):
    from megatron.core.tensor_parallel import random

    from contextlm.megatron import recompute_bias

    assert random.checkpoint is recompute_bias.checkpoint
    bias = torch.nn.Parameter(torch.ones(3))
    outputs = recompute_bias.checkpoint(lambda x: (x * 2, bias), False, torch.ones(3, requires_grad=True))
    assert outputs[1] is bias and bias.is_leaf
    # The fault: megatron-core's own way makes it an output of the recomputed part.
    random.CheckpointFunction.apply(lambda x: (x * 2, bias), False, torch.ones(3, requires_grad=True))
    assert not bias.is_leaf
