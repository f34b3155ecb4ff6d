"""python benchmarks/gpu.py --model gpt2-124m:32 gpt2-1.5b:16 --out runs/gpu

Training speed on one GPU in bf16: our plain GPT and our ContextLM as `pretrain_contextlm.py` runs them, beside the best
plain PyTorch that we know, in alternating windows of the same process. Results are written after every window; a model
that has all of its windows is not measured again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from contextlm import atomic_files
from contextlm.analysis.flops import training_flops_per_token
from contextlm.config.schema import Config
from contextlm.parallel import runtime
from contextlm.training.garbage import collected_by_hand
from contextlm.training.throughput import peak_tflops
from gpu_profile import longest_kernels
from gpu_trainers import CONTEXT, PEER, PLAIN, configuration, ours, peer
from table import table
from trainers import Size, write_tokens

WARM_UP = 5


class Subject(NamedTuple):
    """A preset and its micro-batch."""

    preset: str
    micro_batch_size: int

    def __str__(self) -> str:
        return f"{self.preset}:{self.micro_batch_size}"


def subject(text: str) -> Subject:
    """`PRESET:MICRO_BATCH_SIZE`."""
    name, _, size = text.partition(":")
    if not size.isdigit() or int(size) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give PRESET:MICRO_BATCH_SIZE, e.g. gpt2-124m:32")
    return Subject(name, int(size))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Training speed on one GPU.", allow_abbrev=False, epilog=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--model",
        nargs="+",
        type=subject,
        default=[subject("gpt2-124m:32"), subject("gpt2-1.5b:16")],
        metavar="PRESET:BATCH",
        help="plain presets with their micro-batch size; each is measured with its context head too",
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="of a window [30]")
    parser.add_argument("--windows", type=int, default=3, help="of each trainer, in turns [3]")
    parser.add_argument("--profile", action="store_true", help="print the longest kernels of our trainers too")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results, which later calls go on with")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, then print everything."""
    options = parser().parse_args(arguments)
    if not torch.cuda.is_available():
        raise SystemExit("error: there is no CUDA device here; benchmarks/speed.py measures on a CPU")
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / f"{torch.cuda.get_device_name().replace(' ', '_')}.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for model in options.model:
        found = results.setdefault(str(model), {})
        missing = any(len(found.get(name, {}).get("tokens_per_second", ())) < options.windows for name in names(model))
        if missing:
            measure(model, options, found, lambda: atomic_files.write_json(file, results))
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, bf16")
    for model in options.model:
        print(f"\n{model}\n{shown(model, results[str(model)])}", flush=True)


def names(model: Subject) -> tuple[str, ...]:
    """The trainers of a model: the peer is written for GPT-2."""
    return (PEER, PLAIN, CONTEXT) if model.preset.startswith("gpt2") else (PLAIN, CONTEXT)


def measure(model: Subject, options: argparse.Namespace, found: dict[str, Any], keep: Callable[[], None]) -> None:
    """Windows of all trainers in turns; all of them are in memory at once."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config = configuration(model.preset, model.micro_batch_size, folder / "random")
        assert config.model.vocab_size is not None
        write_tokens(folder / "random", Size(1, 1, 1, config.model.seq_length, config.model.vocab_size, 1, 1))
        configs = {PEER: config, PLAIN: config}
        configs[CONTEXT] = configuration(f"contextlm-{model.preset}", model.micro_batch_size, folder / "random")
        process = stack.enter_context(runtime.start(config.parallel))
        # megatron-core is imported after the device was chosen.
        from contextlm.parallel.layout import model_parallel

        layout = stack.enter_context(model_parallel(config.parallel))
        stack.enter_context(collected_by_hand())
        tokens, steps = model.micro_batch_size * config.model.seq_length, {}
        for name in names(model):
            steps[name] = stack.enter_context((peer if name == PEER else ours)(configs[name], process, layout))
            began = time.perf_counter()
            torch.cuda.reset_peak_memory_stats()
            held = torch.cuda.memory_allocated()
            for _ in range(WARM_UP):
                steps[name]()
            torch.cuda.synchronize()
            found[name] = {
                "tokens_per_second": [],
                "flops_per_token": flops(configs[name]),
                "causal_flops_per_token": flops(configs[name], causal_half=True),
                "first_seconds": time.perf_counter() - began,
                "peak_bytes_of_step": torch.cuda.max_memory_allocated() - held,
            }
        for _ in range(options.windows):
            for name, step in steps.items():
                found[name]["tokens_per_second"].append(window(step, options.seconds) * tokens)
                keep()
        for name in (PLAIN, CONTEXT) if options.profile else ():
            print(f"\n{model} {name}: the longest kernels of an iteration\n{longest_kernels(steps[name])}", flush=True)


def flops(config: Config, *, causal_half: bool = False) -> float:
    """Training FLOPs per token."""
    assert config.model.vocab_size is not None
    return training_flops_per_token(config, config.model.vocab_size, causal_half=causal_half)


def window(step: Callable[[], object], seconds: float) -> float:
    """Iterations per second, over at least so many seconds."""
    torch.cuda.synchronize()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for _ in range(5):
            step()
        torch.cuda.synchronize()
        count += 5
    return count / (time.perf_counter() - began)


def shown(model: Subject, found: dict[str, Any]) -> str:
    """The table of a model."""
    peak, medians = peak_tflops(torch.cuda.get_device_name()), {}
    rows = []
    for name in names(model):
        result = found[name]
        rates = result["tokens_per_second"]
        medians[name] = statistics.median(rates)
        against = {PLAIN: PEER, CONTEXT: PLAIN}.get(name)
        ratio = f"{medians[name] / medians[against]:.3f} of {against}" if against in medians else ""
        used = [medians[name] * result[kind] / 1e12 for kind in ("flops_per_token", "causal_flops_per_token")]
        mfu = ["" if peak is None else f"{tflops / peak:.1%}" for tflops in used]
        rows.append(
            (
                name,
                f"{medians[name]:,.0f}",
                f"{min(rates):,.0f}..{max(rates):,.0f}",
                ratio,
                *mfu,
                f"{result['peak_bytes_of_step'] / 2**30:.1f}",
                f"{result['first_seconds']:.0f}",
            )
        )
    overhead = found[CONTEXT]["flops_per_token"] / found[PLAIN]["flops_per_token"] - 1
    headings = ("trainer", "tokens/s", "windows", "ratio", "MFU", "causal half", "GiB", "first s")
    return f"{table(headings, rows)}\nthe head has {overhead:.2%} more FLOPs"


if __name__ == "__main__":
    sys.exit(main())
