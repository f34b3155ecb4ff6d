"""What `tools/plan.py` answers beyond a dry run, as text: time and money, layouts that fit, the matched baseline."""

from __future__ import annotations

from collections.abc import Sequence

from contextlm.analysis.fitting import Fit, layout_flags, usable
from contextlm.analysis.flops import training_flops_per_token
from contextlm.analysis.largest_micro_batch import COMPARED, Largest
from contextlm.analysis.matching import Match
from contextlm.analysis.memory import RankMemory
from contextlm.analysis.parameters import count_parameters
from contextlm.analysis.run_cost import Cost, RunCost
from contextlm.analysis.step_time import Machine
from contextlm.config.layout_words import layout_words
from contextlm.config.schema import Config

_GIB = 2**30
_SPENT_ON = {
    "work": "work",
    "again": "computing again",
    "launches": "starting kernels",
    "tensor": "tensor-parallel messages",
    "waiting": "waiting in the pipeline",
    "pipeline": "messages between stages",
    "data": "data-parallel messages",
}


def cost_block(cost: RunCost, world_size: int, machine: Machine) -> str:
    """Time and money of the run."""
    gpus = "1 GPU" if world_size == 1 else f"{world_size} GPUs"
    shares = {_SPENT_ON[name]: seconds / cost.step.total for name, seconds in cost.step._asdict().items()}
    spent = ", ".join(f"{share:.1%} {name}" for name, share in shares.items() if share >= 0.0005)
    return "\n".join(
        [
            f"Cost of {cost.tokens:,.0f} tokens on {gpus} of {machine.peak_tflops:g} TFLOP/s",
            f"  at {machine.mfu:.1%} MFU throughout: {_spent(cost.at_mfu)}",
            f"  in this layout, {cost.mfu:.1%} MFU: {_spent(cost.in_layout)}",
            f"  its step of {cost.step.total:.3g} s: {spent}",
        ]
    )


def _spent(cost: Cost) -> str:
    minutes = 60 * cost.hours
    days = f"{cost.days:,.1f}" if cost.days >= 1 else f"{cost.days:.2g}"
    time = f"{cost.hours:,.1f} hours ({days} days)" if minutes >= 60 else f"{minutes:.3g} minutes"
    words = f"{time}, {_amount(cost.gpu_hours)} GPU hours"
    return words if cost.price is None else f"{words}, price {_amount(cost.price)}"


def _amount(value: float) -> str:
    """Whole numbers, but of a small run what can be told apart from nothing."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def fit_block(found: Sequence[Fit], world_size: int, memory_bytes: float) -> str:
    """Layouts that fit, with the flags that ask for them."""
    lines = [f"Layouts that fit {usable(memory_bytes) / _GIB:.1f} GiB, what is usable of a GPU, the fastest first"]
    for place, fit in enumerate(found, 1):
        slower = fit.time.total / found[0].time.total
        lines.append(
            f"  {place}. {layout_words(fit.config, world_size)}, micro-batch {fit.config.training.micro_batch_size}: "
            f"{fit.memory.total / _GIB:.1f} GiB, {fit.time.total:.3g} s a step"
            + (f" (x {slower:.2f})" if place > 1 else "")
        )
        lines.append(f"     {' '.join(layout_flags(fit.config))}")
    return "\n".join(lines)


def naive_block(memory: RankMemory, micro_batch_size: int, problems: Sequence[str], memory_bytes: float) -> str:
    """Why data parallelism alone, with nothing computed again, does or does not do.

    Args:
        memory: what a rank would need.
        micro_batch_size: its samples.
        problems: what the configuration's checks say of it.
        memory_bytes: of a GPU.
    """
    line = f"Data parallelism alone, micro-batch {micro_batch_size}: {verdict(memory, memory_bytes)}"
    return "\n".join([line, *(f"  refused: {problem}" for problem in problems)])


def verdict(memory: RankMemory, memory_bytes: float) -> str:
    """Whether a rank's memory fits a GPU, and what it is made of."""
    parts = ", ".join(f"{name} {size / _GIB:.1f}" for name, size in memory._asdict().items())
    limit = usable(memory_bytes)
    answer = "fits" if memory.total <= limit else f"does not fit, {(memory.total - limit) / _GIB:.1f} GiB too many"
    return f"{memory.total / _GIB:.1f} of {limit / _GIB:.1f} usable GiB, {answer}: {parts}"


def largest_block(found: Sequence[Largest], memory_bytes: float) -> str:
    """The largest micro-batches, a line for each model."""
    lines = [
        f"Largest micro-batch, one an iteration, that fits {usable(memory_bytes) / _GIB:.1f} usable GiB of a GPU",
        f"  {'computed again:':<24}" + "".join(f"{choice:>13}" for choice in COMPARED),
    ]
    lines += [f"  {each.name:<24}" + "".join(f"{samples:>13}" for samples in each.samples) for each in found]
    return "\n".join(lines)


def match_block(found: Match, target: Config, budget: str, vocab_size: int) -> str:
    """The plain baseline beside the model that it is matched to."""
    lines = [f"The plain model of equal {'parameters' if budget == 'params' else 'FLOPs per token'}"]
    lines.append(f"  {'':<22}{'parameters':>16}{'GFLOP per token':>18}")
    rows = (("given", target), (f"--{found.field.replace('_', '-')} {found.value}", found.config))
    amounts = [(count_parameters(c, vocab_size).total, training_flops_per_token(c, vocab_size)) for _, c in rows]
    for (name, _), (parameters, flops) in zip(rows, amounts, strict=True):
        lines.append(f"  {name:<22}{parameters:>16,}{flops / 1e9:>18.4g}")
    residuals = [after / before - 1 for before, after in zip(*amounts, strict=True)]
    lines.append(f"  {'difference':<22}{residuals[0]:>+16.3%}{residuals[1]:>+18.3%}")
    lines.append(f"  flags: --context-chunk-size 0 --{found.field.replace('_', '-')} {found.value}")
    return "\n".join(lines)
