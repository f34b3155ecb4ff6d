"""The CPU runtime turns every CUDA literal that our runs meet; a new one in megatron-core fails here."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

if torch.cuda.is_available():
    pytest.skip("the CPU runtime is for machines without CUDA", allow_module_level=True)

# Parts of megatron-core that get imported along but never run in ours.
UNUSED_ROOMS = {
    "datasets": "samples are our own",
    "dist_checkpointing.exchange_utils": "each rank reads its own part of a checkpoint",
    "distributed.fsdp": "fully sharded data parallelism is not offered",
    "distributed.torch_fully_sharded_data_parallel": "fully sharded data parallelism is not offered",
    "transformer.fsdp_dtensor_checkpoint": "fully sharded data parallelism is not offered",
    "extensions": "Transformer Engine needs CUDA",
    "fp8_utils": "fp8 needs CUDA",
    "fusions.fused_indices_converter": "mixture of experts is not offered",
    "transformer.moe": "mixture of experts is not offered",
    "pipeline_parallel.combined_1f1b": "overlaps communication of experts",
    "pipeline_parallel.fine_grained_activation_offload": "offloading activations is not offered",
    "optimizer.cpu_offloading": "offloading the optimizer is not offered",
    "pipeline_parallel.hybrid_cp_schedule": "context parallelism is not offered",
    "inference": "its generation engine is not used",
    "nccl_allocator": "memory of NCCL",
    "rerun_state_machine": "its fault detection is not used",
    "tensor_parallel.data": "every rank reads its own samples",
}
# Single functions in the rooms that we do use.
ALLOWED = {
    (
        "dist_checkpointing.strategies.state_dict_saver",
        "verify_global_md_reuse",
    ): "only where plans of an earlier save are kept",
    ("distributed.param_and_grad_buffer", "_ParamAndGradBuffer.__init__"): "only with nccl_ub",
    ("models.common.embeddings.rope_utils", "get_pos_emb_on_this_cp_rank"): "only with context parallelism",
    ("optimizer.optimizer", "MegatronOptimizer.restore_from_cpu"): "only after offload_to_cpu",
    ("pipeline_parallel.schedules", "forward_step"): "torch.autocast, only with enable_autocast",
    ("pipeline_parallel.utils", "set_streams"): "only with combined 1F1B",
    ("tensor_parallel.layers", ""): "torch.amp's decorators, which do nothing outside autocast",
    ("tensor_parallel.random", "_get_cuda_rng_state"): "replaced whole by the CPU runtime",
    ("tensor_parallel.random", "_set_cuda_rng_state"): "replaced whole by the CPU runtime",
    ("utils", "GlobalSymmetricMemoryBuffer.__init__"): "symmetric memory is for inference",
    ("utils", "check_param_hashes_across_dp_replicas"): "never called in training",
    ("optimizer.clip_grads", "get_grad_norm_fp32"): "replaced by contextlm.megatron.grad_norm",
    ("optimizer.clip_grads", "clip_grad_by_total_norm_fp32"): "replaced by contextlm.megatron.grad_norm",
    ("utils", "local_multi_tensor_l2_norm"): "only called by get_grad_norm_fp32",
    ("utils", "get_batch_on_this_hybrid_cp_rank"): "only with context parallelism",
}
_LITERAL = re.compile(r"cuda(:\d*)?|torch\.cuda\.\w+Tensor")


class Literal(NamedTuple):
    """A place that names CUDA where the CPU runtime's stand-ins cannot answer for it."""

    function: str
    text: str


def literals_in(source: str) -> list[Literal]:
    """Device and tensor-type strings, and calls of `.cuda()`."""
    found = []

    def visit(node: ast.AST, scope: tuple[str, ...]) -> None:
        for child in ast.iter_child_nodes(node):
            inner = scope
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                inner = (*scope, child.name)
            if isinstance(child, ast.Constant):
                is_found = isinstance(child.value, str) and _LITERAL.fullmatch(child.value) is not None
            else:
                called = child.func if isinstance(child, ast.Call) else None
                is_found = isinstance(called, ast.Attribute) and called.attr == "cuda"
            if is_found:
                found.append(Literal(".".join(scope), ast.unparse(child)))
            visit(child, inner)

    visit(ast.parse(source), ())
    return found


def left_over(room: str, source: str) -> list[Literal]:
    """The literals of a module that neither the CPU runtime turns nor `ALLOWED` excuses."""
    from contextlm.megatron.cpu_runtime import _EDITS, LITERALS

    turned = LITERALS.get(room, {})
    candidates = [literal for literal in literals_in(source) if (room, literal.function) not in ALLOWED]
    if not candidates:
        return []
    mended = source
    for old, new in _EDITS:
        mended = mended.replace(old, new)
    survivors = {literal.function for literal in literals_in(mended)}
    return [literal for literal in candidates if literal.function not in turned or literal.function in survivors]


@pytest.fixture(scope="module")
def used_modules(layout) -> dict[str, str]:
    """Name below megatron.core -> source, of every module that a training run has imported."""
    import megatron.core.dist_checkpointing.strategies.fully_parallel
    import megatron.core.dist_checkpointing.strategies.torch
    import megatron.core.distributed
    import megatron.core.optimizer
    import megatron.core.pipeline_parallel.schedules  # noqa: F401

    import contextlm.model.builder  # noqa: F401

    sources = {}
    for name, module in sorted(sys.modules.items()):
        room = name.removeprefix("megatron.core.")
        path = getattr(module, "__file__", None) or ""
        unused = any(room == prefix or room.startswith(f"{prefix}.") for prefix in UNUSED_ROOMS)
        if room != name and path.endswith(".py") and not unused:
            source = Path(path).read_text()
            if "cuda" in source:
                sources[room] = source
    return sources


def test_every_literal_is_turned_or_explained(used_modules):
    unexplained = {room: found for room, source in used_modules.items() if (found := left_over(room, source))}
    assert unexplained == {}


def test_no_explanation_is_stale(used_modules):
    present = {(room, literal.function) for room, source in used_modules.items() for literal in literals_in(source)}
    assert set(ALLOWED) - present == set()


def test_every_turned_function_is_in_a_used_module(used_modules):
    from contextlm.megatron.cpu_runtime import LITERALS

    present = {(room, literal.function) for room, source in used_modules.items() for literal in literals_in(source)}
    assert {(room, function) for room, functions in LITERALS.items() for function in functions} <= present


@pytest.mark.parametrize(
    "line",
    [
        "x = torch.zeros(1, device='cuda')",
        'x = torch.zeros(1, device="cuda:0")',
        "x = y.cuda()",
        "x = y.type() == 'torch.cuda.HalfTensor'",
        "x = torch.device('cuda', 0)",
    ],
)
def test_a_planted_literal_is_found(used_modules, line):
    """In a new function, and inside one that is turned already: there by its kind or by the count."""
    from contextlm.megatron.cpu_runtime import LITERALS, literals

    room, function = "optimizer.grad_scaler", "MegatronGradScaler.__init__"
    source = used_modules[room]
    assert left_over(room, source) == []
    appended = f"{source}\n\ndef planted(y):\n    {line}\n"
    assert [literal.function for literal in left_over(room, appended)] == ["planted"]

    head = "def __init__(self, initial_scale: float):"
    assert source.count(head) == 1
    inside = source.replace(head, f"{head}\n        {line}")
    body = inside[inside.index(head) : inside.index("@property")]
    assert left_over(room, inside) or literals(body) != LITERALS[room][function]


def test_another_number_of_literals_stops_the_start(layout, monkeypatch):
    from contextlm.megatron import cpu_runtime
    from contextlm.megatron.rewrite import SourceChanged

    monkeypatch.setitem(cpu_runtime.LITERALS["optimizer.optimizer"], "FP32Optimizer.__init__", 2)
    with pytest.raises(SourceChanged, match=r"FP32Optimizer.__init__: expected 2 CUDA literal\(s\), found 1"):
        cpu_runtime.install()


def test_installing_again_changes_nothing(layout):
    from megatron.core.optimizer import clip_grads

    from contextlm.megatron import cpu_runtime

    before = clip_grads.count_zeros_fp32.__code__
    cpu_runtime.install()
    assert clip_grads.count_zeros_fp32.__code__ is before


def test_it_refuses_to_hide_a_gpu(layout, monkeypatch):
    from contextlm.megatron import cpu_runtime

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(RuntimeError, match="hides CUDA"):
        cpu_runtime.install()


def test_the_stand_ins_answer_for_the_cpu(layout):
    assert torch.cuda.current_device() == torch.device("cpu")
    assert torch.zeros(1, device=torch.cuda.current_device()).device.type == "cpu"
    state = torch.cuda.get_rng_state()
    first = torch.rand(3)
    torch.cuda.set_rng_state(state)
    assert torch.equal(torch.rand(3), first)
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda.current_stream().wait_stream(torch.cuda.default_stream())
    assert torch.cuda.memory_allocated() == 0


def test_16_bit_parameters_are_recognised(layout):
    """megatron-core asks for a tensor's type by name; unrecognised, a parameter would not be trained."""
    from megatron.core.transformer.module import float16_to_fp32, fp32_to_float16

    half = fp32_to_float16(torch.ones(2), lambda value: value.bfloat16())
    assert half.dtype == torch.bfloat16
    assert float16_to_fp32(half).dtype == torch.float32
