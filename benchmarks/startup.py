"""python benchmarks/startup.py

How long our programs take to start, beside the imports that they cannot do without, and which packages cost it.
The best of several times: other work on the machine only adds. CPU seconds are those of all processes of a start.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from contextlm.data.indexed_writer import IndexedWriter
from table import machine, table

ROOT = Path(__file__).resolve().parents[1]
PROGRAM, TINY = str(ROOT / "pretrain_contextlm.py"), ("--model", "contextlm-gpt2-tiny")
TORCHRUN = ("-m", "torch.distributed.run", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0")
RANKS = (*TORCHRUN, "--nproc-per-node", "4", PROGRAM)
TP2_PP2 = ("--tensor-model-parallel-size", "2", "--pipeline-model-parallel-size", "2", "--global-batch-size", "2")
ONE_STEP = ("--tokenizer-type", "ByteTokenizer", "--train-iters", "1", "--log-interval", "1", "--eval-iters", "0")
FIRST_STEP = re.compile(rb"iteration +1/")
NUM_PACKAGES = 8


class Start(NamedTuple):
    """One way to start, with the seconds that it may take and the output that says that it has."""

    name: str
    words: tuple[str, ...]
    target: float | None = None
    ready: re.Pattern[bytes] | None = None


def starts(data: str) -> list[Start]:
    """All of them, peers first."""
    return [
        Start("python -c 'import torch'", ("-c", "import torch")),
        Start("python -c 'import megatron.core'", ("-W", "ignore", "-c", "import megatron.core")),
        Start("--help", (PROGRAM, "--help"), 0.3),
        Start("--dry-run", (PROGRAM, *TINY, "--vocab-size", "512", "--dry-run"), 3.0),
        Start("4 ranks, first step", (*RANKS, *TINY, *TP2_PP2, *ONE_STEP, "--data-path", data), 12.0, FIRST_STEP),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description="Seconds until our programs do something.",
        allow_abbrev=False,
        epilog=(__doc__ or "").split("\n")[0],
    )
    parser.add_argument("--repeats", type=int, default=5, help="starts of each kind, in turns; the best counts [5]")
    parser.add_argument("--quick", action="store_true", help="one start of each kind that takes no second")
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        raise SystemExit(f"error: --repeats {options.repeats}: give 1 or more")
    with tempfile.TemporaryDirectory() as folder:
        data = str(Path(folder, "bytes"))
        with IndexedWriter(data, 256) as writer:
            writer.add_document(np.random.default_rng(0).integers(0, 256, 40_000))
        found = [start for start in starts(data) if not options.quick or start.name == "--help"]
        print(machine(), flush=True)
        print(
            table(
                ("start", "seconds", "CPU seconds", "target", "verdict"),
                measure(found, 1 if options.quick else options.repeats),
            )
        )
        if not options.quick:
            print("\nImports of one rank up to its first step, by package, in seconds by the clock")
            print(table(("package", "seconds", "modules"), imports((PROGRAM, *TINY, *ONE_STEP, "--data-path", data))))


def measure(found: Sequence[Start], repeats: int) -> list[tuple[str, ...]]:
    """One line for each way to start."""
    times: dict[str, list[tuple[float, float]]] = {start.name: [] for start in found}
    for _ in range(repeats):
        for start in found:
            times[start.name].append(seconds(start))
    rows: list[tuple[str, ...]] = []
    for start in found:
        wall, cpu = (min(values) for values in zip(*times[start.name], strict=True))
        verdict = "" if start.target is None else "met" if wall <= start.target else "missed"
        target = "" if start.target is None else f"{start.target:g}"
        rows.append((start.name, f"{wall:.2f}", f"{cpu:.2f}", target, verdict))
    return rows


def seconds(start: Start) -> tuple[float, float]:
    """Wall-clock seconds until it is ready (ended, if it does not say), and CPU seconds until it ended."""
    began, cpu_began = time.perf_counter(), _cpu_of_children()
    process = subprocess.Popen(
        [sys.executable, *start.words], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    lines, ready = [], None
    for line in process.stdout:
        lines.append(line)
        if ready is None and start.ready is not None and start.ready.search(line):
            ready = time.perf_counter()
    if process.wait() != 0:
        raise SystemExit(b"".join(lines).decode(errors="replace") + f"\n{start.name} failed")
    return (ready or time.perf_counter()) - began, _cpu_of_children() - cpu_began


def environment() -> dict[str, str]:
    """This checkout's package for the programs, and one thread each, as torchrun has it."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def imports(words: Sequence[str]) -> list[tuple[str, ...]]:
    """The packages whose modules took longest to import, those that a module imports not counted as its own."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words], env=environment(), capture_output=True, text=True, check=True
    )
    spent: Counter[str] = Counter()
    modules: Counter[str] = Counter()
    for microseconds, module in re.findall(r"^import time: +(\d+) \| +\d+ \| +(\S+)$", done.stderr, re.MULTILINE):
        package = ".".join(module.split(".")[: 2 if module.startswith("torch.") else 1])
        spent[package] += int(microseconds)
        modules[package] += 1
    rows = [(name, f"{spent[name] / 1e6:.2f}", str(modules[name])) for name, _ in spent.most_common(NUM_PACKAGES)]
    return [*rows, ("all", f"{spent.total() / 1e6:.2f}", str(modules.total()))]


if __name__ == "__main__":
    main()
