"""What the kernels of a profile are, and how much each has to do: its operations, or the bytes it must move.

A trace of torch's profiler says for each kernel which operation launched it, and the shapes that this had. The
kernels of the compiler, and of ours those in its graphs, are told of with their tensors. Each tensor counts as moved
once and whole, and twice where the compiler has one changed in place; a kernel that reads a part of one, or reads it
twice, is off by that. Where nothing is known nothing is said.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

_BYTES = {"double": 8, "long int": 8, "long": 8, "float": 4, "int": 4, "bool": 1, "c10::BFloat16": 2, "c10::Half": 2}
_CLASSES = (
    ("attention", r"attention|flash|fmha|sdpa"),
    ("products", r"aten::\w*mm\b|aten::linear|aten::matmul|gemm|nvjet|cutlass|xmma|cublas|splitK"),
    ("loss", r"_TokenLosses|^_sums\b|^_gradients\b|nll_loss|log_softmax|cross_entropy|logsumexp"),
    ("optimizer", r"^_adamw|^_add_up|foreach|multi_tensor|LpNorm|_fused_adam"),
    ("copies", r"Memcpy|Memset|aten::copy_|aten::fill_|aten::zero_|aten::_to_copy"),
)
CLASSES = (*(name for name, _ in _CLASSES), "pointwise and norms")


class Kernel(NamedTuple):
    """All runs of one kernel in an iteration.

    Attributes:
        kind: one of CLASSES.
        seconds: together.
        times: how many.
        flops: of a product or attention, None where they are not known.
        num_bytes: of any other kernel, likewise.
    """

    name: str
    kind: str
    seconds: float
    times: float
    flops: float | None
    num_bytes: float | None


def kernels(trace: Iterable[dict[str, Any]], iterations: int, known_bytes: Mapping[str, float]) -> list[Kernel]:
    """The kernels of a trace's events, longest first.

    Args:
        trace: events of the Chrome format, as torch's profiler writes them with shapes recorded.
        iterations: that the trace has.
        known_bytes: pattern of kernels' names -> bytes an iteration that all of them together move.
    """
    events = list(trace)
    operations = {
        e["args"]["External id"]: e for e in events if e.get("cat") == "cpu_op" and "External id" in e["args"]
    }
    found: dict[str, list[dict[str, Any]]] = {}
    longest: dict[Any, dict[str, Any]] = {}  # of each operation: to it belongs what the operation has to do
    for event in events:
        if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset"):
            operation = _owner(event)
            found.setdefault(event["name"], []).append(event)
            if operation not in longest or event["dur"] > longest[operation]["dur"]:
                longest[operation] = event
    rows = []
    for name, runs in found.items():
        owners = [operations.get(_owner(run), {}) for run in runs]
        kind = class_of(name, owners[0].get("name", ""))
        if kind in ("products", "attention"):
            theirs = [o for run, o in zip(runs, owners, strict=True) if longest[_owner(run)] is run]
            amounts, num_bytes = [operations_of(owner) for owner in theirs], None
            flops = _sum(amounts, iterations)
        else:
            amounts, flops = [bytes_of(run, owner) for run, owner in zip(runs, owners, strict=True)], None
            num_bytes = _sum(amounts, iterations)
        rows.append(Kernel(name, kind, _seconds(runs) / iterations, len(runs) / iterations, flops, num_bytes))
    return sorted(_with_known(rows, known_bytes), key=lambda row: -row.seconds)


def class_of(kernel: str, operation: str) -> str:
    """The class of a kernel, by the operation that launched it or its own name."""
    if kernel.startswith("triton_"):  # of the compiler: whatever it has fused, the loss it names
        return "loss" if re.search(r"nll_loss|log_softmax|logsumexp", kernel) else CLASSES[-1]
    for text in (operation, kernel):
        for name, pattern in _CLASSES:
            if text and re.search(pattern, text):
                return name
    return CLASSES[-1]


def operations_of(operation: Mapping[str, Any]) -> float | None:
    """FLOPs of a product, or of causal attention: the half that is worked out, backward with the scores once more."""
    name, shapes = operation.get("name", ""), _shapes(operation)
    first = {"aten::mm": 0, "aten::bmm": 0, "aten::_scaled_mm": 0, "aten::addmm": 1, "aten::baddbmm": 1}.get(name)
    if first is not None and len(shapes) > first + 1:
        left, right = shapes[first : first + 2]
        return 2.0 * math.prod(left) * right[-1] if left and right else None
    states = [shape for shape in shapes if len(shape) == 4]
    if "attention" not in name or not states:
        return None
    length = states[0][1 if name.startswith(("aten::_flash", "aten::_efficient")) else 2]
    return (5.0 if "backward" in name else 2.0) * math.prod(states[0]) * length


def bytes_of(run: Mapping[str, Any], operation: Mapping[str, Any]) -> float | None:
    """Bytes of the tensors of a kernel of the compiler, of a copy, of a transfer inside the device."""
    if "bytes" in run["args"]:
        return None if "HtoD" in run["name"] or "DtoH" in run["name"] else 2.0 * run["args"]["bytes"]
    name = operation.get("name", "")
    is_tritons = name.startswith(("triton_", run["name"])) and "embedding" not in name  # a table is not read whole
    if not (is_tritons or name in ("aten::copy_", "aten::fill_", "aten::zero_")):
        return None
    shapes, types = _shapes(operation), operation["args"].get("Input type", ())
    sizes = [math.prod(shape) * _BYTES.get(kind, 0) if shape else 0 for shape, kind in zip(shapes, types, strict=False)]
    changed = _changed_in_place(operation["args"].get("kernel_file"), name)
    return float(sum(size * (1 + (place in changed)) for place, size in enumerate(sizes))) or None


@functools.cache
def _changed_in_place(file: str | None, kernel: str) -> frozenset[int]:
    """Places of the arguments that a kernel of the compiler reads and writes: its code calls them in_out_ptr."""
    if not file or not Path(file).is_file():
        return frozenset()
    found = re.search(rf"def {re.escape(kernel)}\(([^)]*)\)", Path(file).read_text())
    names = found[1].split(",") if found else []
    return frozenset(place for place, name in enumerate(names) if name.strip().startswith("in_out_ptr"))


def _owner(event: Mapping[str, Any]) -> int | None:
    """The number of an operation, or of that which launched a kernel."""
    number: int | None = event.get("args", {}).get("External id")
    return number


def _shapes(operation: Mapping[str, Any]) -> Sequence[Sequence[int]]:
    shapes = operation.get("args", {}).get("Input Dims", ())
    return [shape if all(isinstance(edge, int) for edge in shape) else [] for shape in shapes]


def _with_known(rows: Sequence[Kernel], known_bytes: Mapping[str, float]) -> list[Kernel]:
    """The same, the bytes of a pattern shared by its kernels as their time is."""
    for pattern, num_bytes in known_bytes.items():
        seconds = sum(row.seconds for row in rows if re.search(pattern, row.name))
        rows = [
            row._replace(num_bytes=num_bytes * row.seconds / seconds) if re.search(pattern, row.name) else row
            for row in rows
        ]
    return list(rows)


def _sum(amounts: Sequence[float | None], iterations: int) -> float | None:
    """Of an iteration; None if one is not known."""
    known = [amount for amount in amounts if amount is not None]
    return sum(known) / iterations if known and len(known) == len(amounts) else None


def _seconds(runs: Iterable[Mapping[str, Any]]) -> float:
    return sum(run["dur"] for run in runs) / 1e6
