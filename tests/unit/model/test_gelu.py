"""GELU's backward pass gives the bias its gradient, on CUDA alone (contextlm/megatron/gelu.py)."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from tests.small_configs import BACKBONES, small_config
from tests.unit.model.forward import run, token_ids

APPROXIMATE = {"gpt2": "tanh", "pythia": "none"}


@pytest.fixture
def kernel(layout, monkeypatch) -> list[str]:
    """Stands in for the kernel, which needs CUDA; the calls that it gets."""
    calls = []

    def gelu_backward(gradient, before, approximate):
        if not torch.compiler.is_compiling():
            calls.append(approximate)
        found = torch.ops.aten.gelu_backward(gradient, before, approximate=approximate)
        return found, found.flatten(0, -2).sum(0)

    module = ModuleType("contextlm.megatron.gelu_kernel")
    module.__dict__["gelu_backward"] = gelu_backward
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return calls


def pretend_cuda(monkeypatch) -> None:
    """From now on a CPU's tensors go the way of CUDA's."""
    from contextlm.megatron import gelu

    monkeypatch.setattr(gelu, "applies", lambda mlp, is_cuda, ask=gelu.applies: ask(mlp, True))


def loss_and_gradients(model: torch.nn.Module) -> list[torch.Tensor]:
    tokens = token_ids(2, 23)
    model.zero_grad()
    loss = run(model, tokens[:, :-1], tokens[:, 1:].contiguous()).mean()
    loss.backward()
    return [loss.detach(), *(parameter.grad for parameter in model.parameters())]


@pytest.mark.parametrize("approximate", APPROXIMATE.values())
def test_the_gradients_are_the_derivatives(kernel, approximate):
    from contextlm.megatron.gelu import linear_gelu

    torch.manual_seed(1)
    shapes = (3, 2, 4), (5, 4), (5,)
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(linear_gelu, (*inputs, approximate))
    assert set(kernel) == {approximate}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_model_has_the_same_gradients(build, kernel, monkeypatch, backbone):
    model = build(small_config(backbone))
    expected = loss_and_gradients(model)
    assert kernel == []  # a CPU goes megatron-core's way
    pretend_cuda(monkeypatch)
    for ours, reference in zip(loss_and_gradients(model), expected, strict=True):
        torch.testing.assert_close(ours, reference)
    assert kernel == [APPROXIMATE[backbone]] * 6  # four layers and two of the predictor


def test_a_layer_is_one_graph(build, kernel, monkeypatch):
    torch._dynamo.reset()
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
    torch._dynamo.reset()
    torch.testing.assert_close(*found)
    (graph,) = graphs
    assert sum("autograd_function_apply" in str(node.target) for node in graph.graph.nodes) == 1
    assert kernel == ["tanh"]  # by itself; then it is in the graph


def test_what_goes_megatron_cores_way(build, monkeypatch):
    from megatron.core.tensor_parallel import ColumnParallelLinear

    from contextlm.megatron.gelu import applies

    mlp = build(small_config("gpt2")).decoder.layers[0].mlp
    first = mlp.linear_fc1
    assert applies(mlp, True) and not applies(mlp, False)
    with monkeypatch.context() as patch:
        patch.setattr(mlp, "activation_func", torch.nn.functional.relu)
        assert not applies(mlp, True)
    with monkeypatch.context() as patch:
        patch.setattr(first, "tp_group", SimpleNamespace(size=lambda: 2))
        assert not applies(mlp, True)
    with monkeypatch.context() as patch:
        patch.setattr(first, "bias", None)
        assert not applies(mlp, True)
    first.__class__ = ColumnParallelLinear  # as Transformer Engine's, it is not ours
    assert not applies(mlp, True)
