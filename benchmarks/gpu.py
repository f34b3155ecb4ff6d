"""python benchmarks/gpu.py --model gpt2-124m:32 gpt2-1.5b:16 --out runs/gpu

Training speed on one GPU in bf16: our plain GPT and our ContextLM as `pretrain_contextlm.py` runs them, beside the best
plain PyTorch that we know, in alternating windows of the same process; MFU with attention in full and with the causal
half; peak memory; with options also the ladder of what makes it fast, the longest kernels, and what the whole loop
costs. What is dear comes last. Everything is written as soon as it is measured, to a file for each kind of device; a
later call goes on with what is missing there, and says what still is.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import gpu_attention
import gpu_ladder
import gpu_loop
import gpu_profile
from contextlm import atomic_files
from contextlm.analysis.device_peaks import peak_tflops
from gpu_bench import Bench, measure_all, started, windows
from gpu_ceilings import ceilings
from gpu_results import not_measured, trainers_table
from gpu_trainers import CONTEXT, PEER, PLAIN, Subject, subject, versions
from gpu_turns import free


def parser() -> argparse.ArgumentParser:
    """The command line."""
    lines = (__doc__ or "").split("\n", 2)
    parser = argparse.ArgumentParser(
        description=lines[2], allow_abbrev=False, epilog=lines[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        nargs="+",
        type=subject,
        default=[subject("gpt2-124m:32"), subject("gpt2-1.5b:16")],
        metavar="PRESET:BATCH",
        help="plain presets with their micro-batch size, as gpt2-124m:32, or gpt2-124m:32x4 for four micro-batches an "
        "iteration, whose gradients are added up in fp32; each is measured with its context head too",
    )
    parser.add_argument(
        "--trainers",
        nargs="+",
        choices=(PLAIN, PEER, CONTEXT),
        default=[PLAIN, PEER, CONTEXT],
        help="those to compare [all three]",
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="of a window [30]")
    parser.add_argument("--windows", type=int, default=3, help="of each trainer, in turns; 0 for the extras alone [3]")
    parser.add_argument("--minutes", type=float, default=9.0, help="nothing runs after these; see what is missing [9]")
    parser.add_argument("--our-loss", action="store_true", help="PyTorch with our loss kernels too")
    parser.add_argument("--fp8", action="store_true", help="plain with products in 8 bits too")
    parser.add_argument("--recompute", action="store_true", help="ours with full recomputation too, one window each")
    parser.add_argument(
        "--profile",
        nargs="*",
        choices=(PLAIN, CONTEXT, PEER),
        help="the longest kernels of an iteration, and what each class of them takes [plain ContextLM]",
    )
    parser.add_argument("--ladder", action="store_true", help="plain without what makes it fast, step by step")
    parser.add_argument(
        "--loop", nargs="*", choices=(PLAIN, CONTEXT), help="the bare step, the loader, the loop, a checkpoint [plain]"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the results, which later calls go on with")
    return parser


def read(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; `profile` and `loop` are the trainers of which that is asked."""
    options = parser().parse_args(arguments)
    options.loop = () if options.loop is None else tuple(options.loop) or (PLAIN,)
    ours = tuple(name for name in (PLAIN, CONTEXT) if name in options.trainers)
    options.profile = () if options.profile is None else tuple(options.profile) or ours
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, then print everything."""
    options = read(arguments)
    if not torch.cuda.is_available():
        raise SystemExit("error: there is no CUDA device here; benchmarks/speed.py measures on a CPU")
    bench_on(torch.cuda.get_device_name(), options)


def bench_on(device: str, options: argparse.Namespace) -> None:
    """Go on with the results of this kind of device, and print them."""
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / f"{device.replace(' ', '_')}.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    results |= {"device": device, "versions": versions(), "date": time.strftime("%Y-%m-%d")}
    with started(options, results, functools.partial(atomic_files.write_json, file, results)) as bench:
        results["ceilings"] = ceilings(bench.process.device)._asdict()
        free()
        measure_all(bench)
        print(f"{device}, {', '.join(f'{name} {version}' for name, version in results['versions'].items())}, bf16")
        print(bench.ceilings)
        for model in options.model:
            print(f"\n{model}\n{shown(bench, model)}", flush=True)


def shown(bench: Bench, model: Subject) -> str:
    """Everything that is known of a model."""
    found, options, config = bench.found(model), bench.options, bench.config(model, PLAIN)
    blocks = [trainers_table(found, peak_tflops(bench.results["device"]))]
    if attention := found.get("attention"):
        blocks.append(gpu_attention.shown(attention["seconds"], attention["taken"]))
    profiles = {name: found[name]["profile"] for name in (PLAIN, CONTEXT, PEER) if "profile" in found.get(name, {})}
    for name, profile in profiles.items():
        blocks.append(f"{name}, an iteration\n{gpu_profile.shown(profile, bench.ceilings_of(profile))}")
    ladder, steps = found.get("ladder", {}), (gpu_ladder.BARE, *(rung.name for rung in gpu_ladder.rungs(config)))
    rates = {name: rate for name, rate in ladder.items() if isinstance(rate, float)}
    if rates:
        steps_shown = gpu_ladder.shown(rates, config, bench.ceilings_of(found).bytes_per_second)
        blocks.append(f"from {gpu_ladder.BARE} to {PLAIN}\n{steps_shown}")
    loops = {name: loop for name, loop in found.get("loop", {}).items() if loop["rounds"]}
    for name, loop in loops.items():
        blocks.append(f"the whole loop, {name}\n{gpu_loop.shown(loop)}")
    parts = {f"profile of {name}": name in profiles for name in options.profile}
    parts |= {f"the whole loop of {name}": not gpu_loop.missing(loops.get(name)) for name in options.loop}
    parts |= {f"step {n} ({ladder.get(n, 'no time')})": n in rates for n in steps if options.ladder}
    if lacking := not_measured(found, windows(options), parts):
        blocks.append(f"not measured: {', '.join(lacking)}")
    return "\n\n".join(block for block in blocks if block)


if __name__ == "__main__":
    main()
