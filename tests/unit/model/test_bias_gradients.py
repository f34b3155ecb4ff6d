"""What follows a product gives its bias the gradient, on CUDA alone: GELU (contextlm/megatron/gelu.py) and the heads of
attention (contextlm/model/self_attention.py). The kernels are torch's here; tests/gpu has ours.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from tests.small_configs import BACKBONES, small_config
from tests.unit.model.forward import run, token_ids

# Four layers and two of the predictor; rotated heads keep megatron-core's way.
KERNELS = {"gpt2": ["tanh", "heads"] * 6, "pythia": ["none"] * 6}


@pytest.fixture
def kernels(layout, monkeypatch) -> list[str]:
    """Stands in for the kernels, which need CUDA; what was asked of them, if no compiler asked."""
    calls: list[str] = []

    def gelu_backward(gradient, before, approximate):
        if not torch.compiler.is_compiling():
            calls.append(approximate)
        found = torch.ops.aten.gelu_backward(gradient, before, approximate=approximate)
        return found, found.flatten(0, -2).sum(0)

    def join_heads(query, key, value):
        if not torch.compiler.is_compiling():
            calls.append("heads")
        joined = torch.stack((query, key, value), dim=-2).flatten(2)
        return joined, joined.sum((0, 1))

    for name, function in (("gelu_kernel", gelu_backward), ("heads_kernel", join_heads)):
        module = ModuleType(f"contextlm.megatron.{name}")
        module.__dict__[function.__name__] = function
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return calls


def pretend_cuda(monkeypatch) -> None:
    """From now on a CPU's tensors go the way of CUDA's."""
    from contextlm.megatron import gelu
    from contextlm.model import self_attention
    from contextlm.model.linear import leaves_bias_gradient

    for module in (gelu, self_attention):
        monkeypatch.setattr(module, "leaves_bias_gradient", lambda layer, is_cuda: leaves_bias_gradient(layer, True))


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


def test_gradients_of_heads_are_the_derivatives(kernels):
    from contextlm.model.self_attention import linear_heads

    torch.manual_seed(1)
    assert torch.autograd.gradcheck(linear_heads, (random(3, 2, 4), random(12, 4), random(12), 2))
    assert set(kernels) == {"heads"}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_model_has_the_same_gradients(build, kernels, monkeypatch, backbone):
    model = build(small_config(backbone))
    expected = loss_and_gradients(model)
    assert kernels == []  # a CPU goes megatron-core's way
    pretend_cuda(monkeypatch)
    for ours, reference in zip(loss_and_gradients(model), expected, strict=True):
        torch.testing.assert_close(ours, reference)
    assert kernels == KERNELS[backbone]


def test_a_layer_is_one_graph(build, kernels, monkeypatch):
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
    assert sum("autograd_function_apply" in str(node.target) for node in graph.graph.nodes) == 2
    assert kernels == ["tanh", "heads"]  # the layer by itself; the compiler has its own


def test_what_leaves_its_bias_to_megatron_core(build, monkeypatch):
    from megatron.core.tensor_parallel import ColumnParallelLinear

    from contextlm.model.linear import leaves_bias_gradient

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
