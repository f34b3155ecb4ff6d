"""Each kind of layer traces as one graph, so that compilers can see it whole."""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any

import pytest
import torch

from tests.small_configs import BACKBONES, FUSIONS, small_config
from tests.unit.model.linear_paths import take_the_way_of_shared_matrices

pytestmark = pytest.mark.usefixtures("fresh_compiler")

LENGTH = 22


def layer_and_inputs(build, backbone: str, index: int, **values) -> tuple[torch.nn.Module, dict]:
    """A layer of a small model in training, and what the model gives it; layer 2 carries the head."""
    model = build(small_config(backbone, **values)).train()
    inputs = {"hidden_states": torch.randn(LENGTH, 2, 64, requires_grad=True), "attention_mask": None}
    if backbone == "pythia":
        inputs["rotary_pos_emb"] = model.rotary_pos_emb(LENGTH)
    return model.decoder.layers[index], inputs


class _Graphs(list):
    """A compiler that runs each graph as it is and keeps it."""

    def __call__(self, graph: torch.fx.GraphModule, example_inputs: list) -> torch.fx.GraphModule:
        self.append(graph)
        return graph

    def attentions(self) -> list[int]:
        """How many attention kernels each graph calls."""
        kernel = torch.nn.functional.scaled_dot_product_attention
        return [sum(node.target is kernel for node in graph.graph.nodes) for graph in self]

    def products(self) -> list[bool]:
        """Of each linear product, in order, whether it adds a bias."""
        linear = torch.nn.functional.linear
        nodes = (node for graph in self for node in graph.graph.nodes if node.target is linear)
        return [len(node.args) > 2 and node.args[2] is not None for node in nodes]


def output_and_gradients(function, layer: torch.nn.Module, inputs: dict) -> list[torch.Tensor]:
    """The layer's output, and the gradients of its input and its parameters."""
    layer.zero_grad()
    inputs["hidden_states"].grad = None
    output, _ = function(**inputs)
    output.square().mean().backward()
    leaves = [inputs["hidden_states"], *layer.parameters()]
    return [output.detach(), *(leaf.grad.clone() for leaf in leaves)]


@pytest.mark.parametrize(
    ("backbone", "index", "kind"),
    [
        ("gpt2", 0, "TransformerLayer"),
        ("pythia", 0, "ParallelResidualLayer"),
        ("gpt2", 2, "TransformerLayerWithContext"),
        ("pythia", 2, "ParallelResidualLayerWithContext"),
    ],
)
def test_a_layer_is_one_graph(build, backbone, index, kind):
    layer, inputs = layer_and_inputs(build, backbone, index)
    assert type(layer).__name__ == kind
    expected = output_and_gradients(layer, layer, inputs)
    graphs = _Graphs()
    compiled = torch.compile(layer, fullgraph=True, backend=graphs)  # fullgraph: a break is an error
    actual = output_and_gradients(compiled, layer, inputs)
    assert graphs.attentions() == [3 if index == 2 else 1]  # one graph, the two predictor layers in it
    for ours, reference in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, reference)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_row_products_leave_their_biases_to_the_kernel_of_the_residual(build, backbone):
    layer, inputs = layer_and_inputs(build, backbone, 0)
    graphs = _Graphs()
    torch.compile(layer, fullgraph=True, backend=graphs)(**inputs)
    # q, k and v; attention's output; into the MLP; out of it.
    assert graphs.products() == [True, False, True, False]


def test_a_layer_whose_matrices_are_shared_is_one_graph(build, monkeypatch):
    take_the_way_of_shared_matrices(monkeypatch)
    layer, inputs = layer_and_inputs(build, "gpt2", 2)
    graphs = _Graphs()
    torch.compile(layer, fullgraph=True, backend=graphs)(**inputs)
    assert graphs.attentions() == [3]


@pytest.mark.parametrize("fusion", FUSIONS[1:])
def test_every_fusion_is_one_graph(build, fusion):
    layer, inputs = layer_and_inputs(build, "gpt2", 2, context_fusion=fusion)
    with torch.no_grad():
        expected = layer(**inputs)[0]
        graphs = _Graphs()
        actual = torch.compile(layer, fullgraph=True, backend=graphs)(**inputs)[0]
    assert graphs.attentions() == [3]
    torch.testing.assert_close(actual, expected)


def test_the_stock_default_group_breaks_the_graph(build, monkeypatch):
    """What contextlm/megatron/tensor_group.py mends."""
    from megatron.core.utils import get_tensor_model_parallel_group_if_none as mended

    source = textwrap.dedent(inspect.getsource(mended))
    stock: dict[str, Any] = {}
    exec(compile(ast.parse(source), mended.__code__.co_filename, "exec"), mended.__globals__, stock)
    monkeypatch.setattr(mended, "__code__", stock[mended.__name__].__code__)
    take_the_way_of_shared_matrices(monkeypatch)
    layer, inputs = layer_and_inputs(build, "gpt2", 0)
    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(layer, fullgraph=True, backend="eager")(**inputs)
