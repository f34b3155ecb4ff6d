"""GELU gives the bias before it its gradient, on CUDA alone (contextlm/megatron/gelu.py).

The kernels are torch's here; tests/gpu has ours.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from tests.small_configs import BACKBONES, small_config
from tests.unit.model.forward import run, token_ids

# Four layers and two of the predictor.
KERNELS = {"gpt2": ["tanh"] * 6, "pythia": ["none"] * 6}


@pytest.fixture
def kernels(layout, monkeypatch) -> list[str]:
    """Stands in for the kernels, which need CUDA; what was asked of the backward pass's, if no compiler asked."""
    calls: list[str] = []

    def gelu_backward(gradient, before, approximate):
        if not torch.compiler.is_compiling():
            calls.append(approximate)
        found = torch.ops.aten.gelu_backward(gradient, before, approximate=approximate)
        return found, found.flatten(0, -2).sum(0)

    module = ModuleType("contextlm.megatron.gelu_kernel")
    module.__dict__["gelu_forward"] = lambda before, approximate: torch.ops.aten.gelu(before, approximate=approximate)
    module.__dict__["gelu_backward"] = gelu_backward
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return calls


def pretend_cuda(monkeypatch) -> None:
    """From now on a CPU's tensors go the way of CUDA's."""
    from contextlm.megatron import gelu

    leaves = gelu.leaves_bias_gradient
    monkeypatch.setattr(gelu, "leaves_bias_gradient", lambda layer, is_cuda: leaves(layer, True))


def loss_and_gradients(model: torch.nn.Module) -> list[torch.Tensor]:
    tokens = token_ids(2, 23)
    model.zero_grad()
    loss = run(model, tokens[:, :-1], tokens[:, 1:].contiguous()).mean()
    loss.backward()
    return [loss.detach(), *(parameter.grad for parameter in model.parameters())]


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("approximate", ["tanh", "none"])
def test_gradients_of_gelu_are_the_derivatives(kernels, approximate):
    from contextlm.megatron.gelu import linear_gelu

    torch.manual_seed(1)
    assert torch.autograd.gradcheck(linear_gelu, (random(3, 2, 4), random(5, 4), random(5), approximate))
    assert set(kernels) == {approximate}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_model_has_the_same_gradients(build, kernels, monkeypatch, backbone):
    model = build(small_config(backbone))
    expected = loss_and_gradients(model)
    assert kernels == []  # a CPU goes megatron-core's way
    pretend_cuda(monkeypatch)
    for ours, reference in zip(loss_and_gradients(model), expected, strict=True):
        torch.testing.assert_close(ours, reference)
    assert kernels == KERNELS[backbone]


def test_a_layer_is_one_graph(build, fresh_compiler, kernels, monkeypatch):
    layer = build(small_config("gpt2")).train().decoder.layers[0]
    pretend_cuda(monkeypatch)
    inputs = {"hidden_states": torch.randn(22, 2, 64), "attention_mask": None}
    graphs = []

    def keep(graph, given):
        graphs.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, given)

    found = []
    for function in (layer, torch.compile(layer, fullgraph=True, backend=keep)):
        layer.zero_grad()
        function(**inputs)[0].square().mean().backward()
        found.append([parameter.grad for parameter in layer.parameters()])
    torch.testing.assert_close(*found)
    (graph,) = graphs
    assert sum("autograd_function_apply" in str(node.target) for node in graph.graph.nodes) == 1
    assert kernels == ["tanh"]  # the layer by itself; the compiler has its own


def test_what_leaves_its_bias_to_megatron_core(build, monkeypatch):
    from megatron.core.tensor_parallel import ColumnParallelLinear

    from contextlm.megatron.gelu import leaves_bias_gradient

    layer = build(small_config("gpt2")).decoder.layers[0].mlp.linear_fc1
    assert leaves_bias_gradient(layer, True) and not leaves_bias_gradient(layer, False)
    for name, value in {
        "tp_group": SimpleNamespace(size=lambda: 2),
        "bias": None,
        "__class__": ColumnParallelLinear,  # Transformer Engine's is not ours either
    }.items():
        with monkeypatch.context() as patch:
            patch.setattr(layer, name, value)
            assert not leaves_bias_gradient(layer, True), name
