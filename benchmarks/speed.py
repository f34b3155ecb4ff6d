"""python benchmarks/speed.py

Training speed of our plain GPT and our ContextLM on one CPU process in fp32, beside a GPT in plain PyTorch, in turns.
All three begin with the same weights and see the same samples, and the losses must agree: the work is the same.
Exits with 1 if a ratio is below its target by more than the noise.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

import contextlm
from contextlm.training.garbage import collected_by_hand
from rounds import Ratio, seconds_by_round, speed_ratio
from table import machine, table
from trainers import CONTEXT, PEER, PLAIN, SIZES, Size, trainers

CLOCKS: dict[str, Callable[[], float]] = {"cpu": time.process_time, "wall": time.perf_counter}
WARM_UP = 3
PLAIN_TARGET = 0.97
CONTEXT_ALLOWANCE = 0.01  # beyond its FLOPs
# The peer counts the padding of its vocabulary as tokens: log(50304 / 50257), and some rounding.
LOSS_TOLERANCE = 2e-3


def parser() -> argparse.ArgumentParser:
    """The command line."""
    sizes = [name for name in SIZES if name != "quick"]
    parser = argparse.ArgumentParser(
        description="Training speed beside plain PyTorch.", allow_abbrev=False, epilog=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--size", nargs="+", choices=sizes, default=sizes, help="models [all]")
    parser.add_argument("--rounds", type=int, default=15, help="iterations of each trainer, in turns [15]")
    parser.add_argument("--threads", type=int, default=1, help="of each trainer [1: what torchrun gives a rank]")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="cpu", help="cpu: seconds of this process, not of others; wall [cpu]"
    )
    parser.add_argument("--quick", action="store_true", help="a tiny model for 3 rounds, no verdict: does it run?")
    return parser


def problems(options: argparse.Namespace) -> list[str]:
    """What cannot be measured."""
    found = [
        f"--{name} {value}: give 1 or more" for name in ("rounds", "threads") if (value := vars(options)[name]) < 1
    ]
    if options.threads > 1 and options.clock == "cpu":
        found.append(
            f"--threads {options.threads}: CPU seconds count threads that wait for each other; give --clock wall too"
        )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print; the exit status is the verdict."""
    options = parser().parse_args(arguments)
    if found := problems(options):
        raise SystemExit("\n".join(f"error: {problem}" for problem in found))
    torch.set_num_threads(options.threads)
    print(f"{machine()}; {options.threads} thread(s), fp32, {options.clock} seconds")
    print(f"measured: {Path(contextlm.__file__).parent}", flush=True)
    missed = []
    for name in ["quick"] if options.quick else options.size:
        missed += measure(name, SIZES[name], 3 if options.quick else options.rounds, CLOCKS[options.clock])
    if missed and not options.quick:
        raise SystemExit("\n".join(missed))


def measure(name: str, size: Size, num_rounds: int, clock: Callable[[], float]) -> list[str]:
    """Print the table of one size; returns a sentence for each target that was missed."""
    with trainers(size) as steps, collected_by_hand():
        losses = {trainer: [step() for _ in range(WARM_UP)] for trainer, step in steps.items()}
        check_losses(losses)
        seconds = seconds_by_round(steps, num_rounds, clock)
    targets = {PLAIN: (PEER, PLAIN_TARGET), CONTEXT: (PLAIN, 1 / (1 + size.overhead) - CONTEXT_ALLOWANCE)}
    ratios = {trainer: speed_ratio(seconds[trainer], seconds[peer]) for trainer, (peer, _) in targets.items()}
    rows = [
        row(trainer, size.tokens / statistics.median(seconds[trainer]), losses[trainer], ratios, targets)
        for trainer in steps
    ]
    headings = ("trainer", "tokens/s", f"loss {WARM_UP}", "ratio", "to", "95% interval", "target", "verdict")
    print(f"\n{name}: {size}; {num_rounds} rounds; the head has {size.overhead:.1%} more FLOPs")
    print(table(headings, rows), flush=True)
    return [
        f"{name}: {trainer} has {ratios[trainer].median:.3f} of the speed of {peer}, at most "
        f"{ratios[trainer].high:.3f}; the target is {target:.3f}"
        for trainer, (peer, target) in targets.items()
        if ratios[trainer].verdict(target) == "missed"
    ]


def row(
    trainer: str,
    rate: float,
    losses: Sequence[float],
    ratios: Mapping[str, Ratio],
    targets: Mapping[str, tuple[str, float]],
) -> tuple[str, ...]:
    """One line of the table."""
    speed = (trainer, f"{rate:,.0f}", f"{losses[-1]:.4f}")
    if trainer not in ratios:
        return (*speed, "1", "", "", "", "")
    ratio, (peer, target) = ratios[trainer], targets[trainer]
    interval = f"{ratio.low:.3f}..{ratio.high:.3f}"
    return (*speed, f"{ratio.median:.3f}", peer, interval, f"{target:.3f}", ratio.verdict(target))


def check_losses(losses: Mapping[str, Sequence[float]]) -> None:
    """Refuse to compare trainers that do not do the same."""
    furthest = max(abs(own - peer) for own, peer in zip(losses[PLAIN], losses[PEER], strict=True))
    if not furthest < LOSS_TOLERANCE:
        raise SystemExit(f"{PLAIN} and {PEER} do different work: their losses are {furthest:.2g} apart, {losses}")


if __name__ == "__main__":
    main()
