"""Which kernels an iteration spends its time in, and how far each is from what the device can do."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile

from contextlm.config.schema import Config
from contextlm.config.unbuffered import adds_nothing_up
from gpu_ceilings import Ceilings
from gpu_clock import synchronize, window
from gpu_kernels import CLASSES, Kernel, kernels
from gpu_trainers import num_parameters, vocab_size
from table import table

ITERATIONS = 3
SECONDS = 25.0  # that a profile takes, at most
LONGEST = 10


def profiled(step: Callable[[], object], config: Config) -> dict[str, Any]:
    """Wall seconds of an iteration without the profiler, and all kernels of one, longest first."""
    wall = 1 / window(step, 2.0)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], record_shapes=True) as seen:
        for _ in range(ITERATIONS):
            step()
        synchronize()
    with tempfile.TemporaryDirectory() as folder:
        seen.export_chrome_trace(str(Path(folder, "trace.json")))
        trace = json.loads(Path(folder, "trace.json").read_text())["traceEvents"]
    rows = kernels(trace, ITERATIONS, known_bytes(config))
    return {"wall_seconds": wall, "kernels": [row._asdict() for row in rows]}


def known_bytes(config: Config) -> dict[str, float]:
    """Bytes an iteration that our own kernels move, by their names: those of the loss, of AdamW, of the norm."""
    model = config.model
    logits = model.seq_length * config.global_batch_size(1) * model.padded_vocab_size(vocab_size(config), 1)
    gradient = 2 if adds_nothing_up(config, 1) else 4
    parameters, count = num_parameters(config), config.num_microbatches(1)
    return {
        r"^_add_up$": (10.0 * count - 4) * parameters,  # bf16 gradients into fp32 sums, of which the first is not read
        r"^_sums$": 2.0 * logits,
        r"^_gradients$": 4.0 * logits,
        r"^_adamw": (26.0 + gradient) * parameters,  # masters and moments in and out, the 16-bit weight out
        r"LpNorm": float(gradient) * parameters,
    }


def shown(result: Mapping[str, Any], ceilings: Ceilings) -> str:
    """The longest kernels, and the sums of each class."""
    rows = [Kernel(**row) for row in result["kernels"]]
    wall = result["wall_seconds"]
    longest = [(row.name[:70], *_cells([row], wall, ceilings)) for row in rows[:LONGEST]]
    headings = ("ms", "share", "times", "TFLOP/s", "TB/s", "of the roofline")
    classes = [(kind, *_cells([row for row in rows if row.kind == kind], wall, ceilings)) for kind in CLASSES]
    idle = wall - sum(row.seconds for row in rows)
    classes.append(("idle", f"{idle * 1e3:.3f}", f"{idle / wall:.1%}", "", "", "", ""))
    classes.append(("an iteration", f"{wall * 1e3:.3f}", "100.0%", "", "", "", ""))
    return f"{table(('kernel', *headings), longest)}\n\n{table(('class', *headings), classes)}"


def _cells(rows: Iterable[Kernel], wall: float, ceilings: Ceilings) -> tuple[str, ...]:
    """Of some kernels together; the rates are of those whose work is known, and empty if they are not nearly all."""
    rows = list(rows)
    seconds = sum(row.seconds for row in rows)
    cells = [f"{seconds * 1e3:.3f}", f"{seconds / wall:.1%}", f"{sum(row.times for row in rows):.0f}"]
    ideal = 0.0
    for amount, ceiling in (("flops", 0), ("num_bytes", 1)):
        known = [row for row in rows if getattr(row, amount) is not None]
        time, work = sum(row.seconds for row in known), sum(getattr(row, amount) for row in known)
        cells.append(f"{work / time / 1e12:.2f}" if seconds and time > 0.9 * seconds else "")
        ideal += work / ceilings[ceiling]
    known_seconds = sum(row.seconds for row in rows if row.flops is not None or row.num_bytes is not None)
    is_told = seconds and known_seconds > 0.9 * seconds
    return (*cells, f"{ideal / known_seconds:.0%}" if is_told else "")
