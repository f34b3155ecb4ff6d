"""What a compiled model keeps for its backward pass, and what it holds at most, is what the formulas say.

The compiler's own partitioner decides the first; here it partitions for a GPU's attention, and nothing is compiled. The
second is measured where a C++ compiler makes code for a CPU, with a loss that overwrites its logits, as on CUDA.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from contextlm.analysis.activation_memory import Activations
from contextlm.analysis.activation_peak import peak_activations
from contextlm.analysis.execution import Execution
from contextlm.config.schema import Config
from contextlm.model.compilation import compile_parts
from tests.small_configs import VOCAB_SIZE, small_config

Kept = list[int]
"""Bytes that each graph keeps between its forward and its backward pass, weights not counted."""

SIZES = {"num_layers": 3, "hidden_size": 128, "num_attention_heads": 2, "seq_length": 128, "micro_batch_size": 4}


def tokens(config: Config) -> tuple[Tensor, Tensor]:
    shape = config.training.micro_batch_size, config.model.seq_length
    return torch.randint(0, VOCAB_SIZE, shape), torch.arange(shape[1]).expand(shape)


def cudnn(query: Tensor, key: Tensor, value: Tensor, *, scale: float | None, **_: Any) -> Tensor:
    """A GPU's attention, which knows the shapes of what it keeps without one."""
    return torch.ops.aten._scaled_dot_product_cudnn_attention(query, key, value, None, True, 0.0, True, scale=scale)[0]


def kept_by_graphs(
    model: Any, config: Config, unit: str, monkeypatch: pytest.MonkeyPatch, compile_with: Callable[[Any], None]
) -> Kept:
    """Trace the model, and have the compiler say what its forward graphs hand to their backward graphs."""
    from torch._inductor import compile_fx

    found, partition = [], compile_fx.partition_fn

    def noted(graph: Any, inputs: Any, *, num_fwd_outputs: int, **others: Any) -> Any:
        forward, backward = partition(graph, inputs, num_fwd_outputs=num_fwd_outputs, **others)
        outputs: Any = forward.graph.output_node().args[0]
        tensors = {
            node.meta["val"].untyped_storage()._cdata: node.meta["val"].untyped_storage().nbytes()
            for node in outputs[num_fwd_outputs:]
            # Of what comes in only the states, [S, B, H], are no weights.
            if isinstance(node.meta["val"], Tensor) and (node.op != "placeholder" or node.meta["val"].dim() == 3)
        }
        found.append(sum(tensors.values()))
        return forward, backward

    def uncompiled(graph: Any, inputs: Any, **_: Any) -> Callable:
        """Tensors of the right shapes, and no numbers in them."""

        def outputs(arguments: list[Any]) -> list[Any]:
            values = [getattr(node, "meta", {}).get("val", node) for node in graph.graph.output_node().args[0]]
            return [
                torch.empty_strided(v.shape, v.stride(), dtype=v.dtype) if isinstance(v, Tensor) else v for v in values
            ]

        outputs._boxed_call = True  # type: ignore[attr-defined]
        return outputs

    monkeypatch.setattr(compile_fx, "partition_fn", noted)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", cudnn)
    compile_with(lambda graph, inputs: compile_fx.compile_fx(graph, inputs, inner_compile=uncompiled))
    compile_parts([model], unit)
    model.train().states_or_logits(*tokens(config), None)
    return found


@pytest.mark.parametrize(("backbone", "unit"), [("gpt2", "model"), ("pythia", "layer")])
def test_the_compiler_keeps_what_the_tables_list(build, monkeypatch, compile_with, backbone: str, unit: str) -> None:
    values = SIZES | {"bf16": True, "num_layers": 2, "context_predictor_layers": 1}
    config = small_config(backbone, **values)
    found = kept_by_graphs(build(config).bfloat16(), config, unit, monkeypatch, compile_with)
    tables = Activations(config, VOCAB_SIZE, Execution(compiled=unit))
    layer, head = (
        sum(map(sum, (part.values() for part in parts))) for parts in ([tables.layer()], tables.context_head())
    )
    if unit == "layer":
        assert found == pytest.approx([layer, head + layer], rel=0.03)
        return
    output = sum(tables.output().values()) - tables.output()["logits, later their gradients"]
    assert found == pytest.approx([2 * layer + head + output], rel=0.03)
    # A model that computes GELU again, or keeps the norms' insides in fp32, would be noticed.
    for name in ("input of fc2", "input of qkv"):
        assert found != pytest.approx([2 * (layer - tables.layer()[name]) + head + output], rel=0.03)


class InPlaceLoss(torch.autograd.Function):
    """A loss that overwrites logits, as the kernels of CUDA do; what it says is of no interest."""

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor) -> Tensor:
        ctx.save_for_backward(logits_NV)
        return logits_NV.new_zeros(len(logits_NV))

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> Tensor:
        (logits_NV,) = ctx.saved_tensors
        return logits_NV.mul_(1e-3)


def allocated(model: Any, config: Config, buffered: bool) -> int:
    """The most bytes that a CPU's allocator gives out in an iteration beside the weights and their buffers."""
    from torch.profiler import ProfilerActivity, profile

    def to_buffer(parameter: torch.nn.Parameter, buffer: Tensor) -> None:
        buffer.copy_(parameter.grad)
        parameter.grad = None

    buffers = {parameter: torch.zeros_like(parameter) for parameter in model.parameters()} if buffered else {}
    for parameter, buffer in buffers.items():
        parameter.register_post_accumulate_grad_hook(lambda p, buffer=buffer: to_buffer(p, buffer))
    given = tokens(config)

    def iterate() -> None:
        InPlaceLoss.apply(model.states_or_logits(*given, None).flatten(0, 1)).sum().backward()
        model.zero_grad(set_to_none=True)

    iterate()  # compiles
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        iterate()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    held, peak = 0, 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


ONE_BY_ONE = {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}
FEW_TOKENS = {"hidden_size": 256, "num_attention_heads": 4, "seq_length": 32, "micro_batch_size": 2}
PEAKS: tuple[tuple[str, str, dict[str, Any], bool], ...] = (
    ("gpt2", "model", {}, True),
    ("pythia", "model", {}, True),  # a table of its own
    ("gpt2", "model", FEW_TOKENS, True),  # where gradients of weights are most of it
    ("gpt2", "layer", FEW_TOKENS, True),
    ("pythia", "layer", {}, False),
    ("gpt2", "layer", ONE_BY_ONE, True),
)


@pytest.mark.full
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.parametrize(("backbone", "unit", "values", "buffered"), PEAKS)
def test_the_compiled_model_holds_what_the_formula_says(
    layout, monkeypatch, backbone: str, unit: str, values: dict[str, Any], buffered: bool
) -> None:
    from contextlm.model.builder import build_model

    config, vocab_size = small_config(backbone, **SIZES | values), 4096
    (model,) = build_model(config, vocab_size, layout.groups)
    compile_parts([model.train()], unit)
    measured = allocated(model, config, buffered)
    expected = peak_activations(config, vocab_size, 0, 1, Execution(compiled=unit, buffered=buffered)).total
    print(f"{backbone} {unit} {values}: {measured / 2**20:.1f} MiB, planned {expected / measured - 1:+.2%}")
    assert measured == pytest.approx(expected, rel=0.05)
    for other in ("off", "model"):
        if values is FEW_TOKENS and other != unit:
            another = peak_activations(config, vocab_size, 0, 1, Execution(compiled=other)).total
            assert measured != pytest.approx(another, rel=0.05)
