"""python benchmarks/fp8_speed.py --model gpt2-1.5b --num-layers 12 --micro-batch-size 16

What `--fp8-format hybrid --fp8-recipe tensorwise` gains on one GPU: the same model in bf16 and in 8 bits, as
`pretrain_contextlm.py` runs it, in alternating windows of one process, on random tokens.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from contextlm.config.fields import build
from contextlm.config.presets import preset
from contextlm.config.schema import Config
from contextlm.data.datasets import build_datasets
from contextlm.parallel import runtime
from contextlm.training.garbage import collected_by_hand
from table import table
from trainers import RandomTokens, Size, write_tokens

BF16, FP8 = "bf16", "fp8"
WARM_UP = 5


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="bf16 beside 8 bits on one GPU.", allow_abbrev=False, epilog=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--model", default="gpt2-1.5b", help="a preset [gpt2-1.5b]")
    parser.add_argument("--num-layers", type=int, help="in place of the preset's")
    parser.add_argument("--micro-batch-size", type=int, default=16, help="samples of an iteration [16]")
    parser.add_argument("--compile", default="auto", help="as of training [auto]")
    parser.add_argument("--seconds", type=float, default=20.0, help="of a window [20]")
    parser.add_argument("--windows", type=int, default=3, help="of each precision, in turns [3]")
    parser.add_argument("--profile", action="store_true", help="print the longest kernels of both too")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Build both, time them in turns, print the table."""
    options = parser().parse_args(arguments)
    with contextlib.ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "random"
        configs = {name: configuration(options, data, name) for name in (BF16, FP8)}
        model = configs[BF16].model
        assert model.vocab_size is not None
        write_tokens(data, Size(1, 1, 1, model.seq_length, model.vocab_size, 1, 1))
        process = stack.enter_context(runtime.start(configs[BF16].parallel))
        # megatron-core is imported after the device was chosen.
        from contextlm.parallel.layout import model_parallel

        layout = stack.enter_context(model_parallel(configs[BF16].parallel))
        stack.enter_context(collected_by_hand())
        steps, notes = {}, {}
        for name, config in configs.items():
            steps[name] = stack.enter_context(trainer(config, process, layout))
            notes[name] = warm_up(steps[name], process.device)
        rates: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(options.windows):
            for name, step in steps.items():
                tokens = options.micro_batch_size * model.seq_length
                rates[name].append(window(step, options.seconds, process.device) * tokens)
        print(f"{process.device}, torch {torch.__version__}: {options.model}, {model.num_layers} layers", flush=True)
        print(shown(rates, notes), flush=True)
        for name, step in steps.items() if options.profile else ():
            print(f"\n{name}: the longest kernels of three iterations\n{longest_kernels(step)}", flush=True)


def configuration(options: argparse.Namespace, data: Path, precision: str) -> Config:
    """One micro-batch an iteration."""
    chosen = preset(options.model)
    values: dict[str, Any] = {
        "micro_batch_size": options.micro_batch_size,
        "global_batch_size": options.micro_batch_size,
        "train_iters": 1_000_000,
        "bf16": True,
        "compile": options.compile,
        "data_path": (str(data),),
        "split": "100,0,0",
    }
    if options.num_layers is not None:
        values["num_layers"] = options.num_layers
    if precision == FP8:
        values |= {"fp8_format": "hybrid", "fp8_recipe": "tensorwise"}
    return build(chosen["model"] | chosen["optimizer"] | chosen.get("context", {}) | values, None)


@contextlib.contextmanager
def trainer(config: Config, process: Any, layout: Any) -> Iterator[Callable[[], object]]:
    """One iteration of our trainer."""
    from contextlm.training.setup import setup
    from contextlm.training.step import train_step

    assert config.model.vocab_size is not None
    tokenizer: Any = RandomTokens(config.model.vocab_size)
    run = setup(config, process, layout, tokenizer, build_datasets(config, tokenizer))
    batches = run.micro_batches(run.datasets.train, 0, run.num_microbatches)
    assert batches is not None
    with contextlib.closing(batches):

        def step() -> object:
            result = train_step(run, batches)
            run.progress.iteration += 1
            run.progress.consumed_samples += result.num_samples
            return result.loss

        yield step


def warm_up(step: Callable[[], object], device: torch.device) -> tuple[str, str]:
    """The first iterations: seconds until they are done, and the GiB that they need beside what is held."""
    held = torch.cuda.memory_allocated()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    for _ in range(WARM_UP):
        step()
    torch.cuda.synchronize()
    return f"{time.perf_counter() - began:.0f}", f"{(torch.cuda.max_memory_allocated() - held) / 2**30:.1f}"


def window(step: Callable[[], object], seconds: float, device: torch.device) -> float:
    """Iterations per second, over at least so many seconds."""
    torch.cuda.synchronize()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for _ in range(5 if device.type == "cuda" else 1):
            step()
            count += 1
        torch.cuda.synchronize()
    return count / (time.perf_counter() - began)


def shown(rates: dict[str, list[float]], notes: dict[str, tuple[str, str]]) -> str:
    """The table."""
    medians = {name: statistics.median(each) for name, each in rates.items()}
    rows = [
        (name, f"{medians[name]:,.0f}", f"{min(each):,.0f}..{max(each):,.0f}", f"{medians[name] / medians[BF16]:.3f}")
        + notes[name]
        for name, each in rates.items()
    ]
    return table(("precision", "tokens/s", "windows", "of bf16", "first s", "GiB"), rows)


def longest_kernels(step: Callable[[], object]) -> str:
    """torch's table of them, by total time."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
        for _ in range(3):
            step()
        torch.cuda.synchronize()
    return seen.key_averages().table(sort_by="self_cuda_time_total", row_limit=25, max_name_column_width=90)


if __name__ == "__main__":
    main()
