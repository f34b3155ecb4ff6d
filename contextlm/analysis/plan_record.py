"""A plan for programs: the numbers of its text, as one JSON object. Bytes, FLOPs, seconds; nothing is rounded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from contextlm.analysis.execution import execution
from contextlm.analysis.fitting import Fit, layout_flags
from contextlm.analysis.flops import forward_flops_per_token, training_flops_per_token
from contextlm.analysis.largest_micro_batch import COMPARED, Largest
from contextlm.analysis.matching import Match
from contextlm.analysis.memory import RankMemory, rank_memory
from contextlm.analysis.parameters import ParameterCounts, count_parameters
from contextlm.analysis.recompute_choices import compare_choices, recompute_flags
from contextlm.analysis.run_cost import RunCost
from contextlm.analysis.stage_work import balance, stage_work
from contextlm.config.layout_words import layout_words
from contextlm.config.pipeline import stage_parts
from contextlm.config.schema import Config


def plan_record(config: Config, vocab_size: int, world_size: int) -> dict[str, Any]:
    """What `costs` of the dry run says."""
    works = stage_work(config, vocab_size)
    shares = balance([work.training for work in works], config.num_microbatches(world_size), config.num_model_chunks)
    stages = [
        {
            "layers": [[part[0], part[-1]] for part in stage_parts(config, stage)],
            "forward_flops_per_token": work.forward,
            "of_the_head": work.head,
            "of_the_output_layer": work.output,
            "training_flops_per_token": work.training,
            "memory": _with_total(rank_memory(config, vocab_size, stage, world_size)),
        }
        for stage, work in enumerate(works)
    ]
    recompute = [
        {
            "name": choice.name,
            "flags": recompute_flags(choice.config),
            "stage": choice.stage,
            "memory": _with_total(choice.memory),
            "more_work": choice.more_work,
            "compiled": choice.compiled,
        }
        for choice in compare_choices(config, vocab_size, world_size)
    ]
    return {
        "parameters": _with_total(count_parameters(config, vocab_size)),
        "flops_per_token": {
            "forward": forward_flops_per_token(config, vocab_size),
            "training": training_flops_per_token(config, vocab_size),
        },
        "layout": layout_words(config, world_size),
        "num_microbatches": config.num_microbatches(world_size),
        "compiled": execution(config, world_size, on_cuda=True).compiled,
        "stages": stages,
        "shares_of_a_step": shares._asdict(),
        "recompute": recompute,
    }


def cost_record(cost: RunCost) -> dict[str, Any]:
    """Time and money."""
    return {
        "tokens": cost.tokens,
        "at_mfu": cost.at_mfu._asdict(),
        "in_layout": cost.in_layout._asdict(),
        "mfu_of_layout": cost.mfu,
        "step": _with_total(cost.step),
    }


def fit_record(found: Sequence[Fit], world_size: int) -> list[dict[str, Any]]:
    """Layouts that fit, the fastest first."""
    return [
        {
            "layout": layout_words(fit.config, world_size),
            "flags": layout_flags(fit.config),
            "memory": _with_total(fit.memory),
            "step": _with_total(fit.time),
        }
        for fit in found
    ]


def largest_record(found: Sequence[Largest]) -> dict[str, Any]:
    """The largest micro-batches by model and by what is computed again."""
    return {each.name: dict(zip(COMPARED, each.samples, strict=True)) for each in found}


def match_record(found: Match, vocab_size: int) -> dict[str, Any]:
    """The matched baseline."""
    return {
        "flags": ["--context-chunk-size 0", f"--{found.field.replace('_', '-')} {found.value}"],
        "wanted": found.wanted,
        "reached": found.reached,
        "difference": found.residual,
        "parameters": count_parameters(found.config, vocab_size).total,
        "training_flops_per_token": training_flops_per_token(found.config, vocab_size),
    }


def _with_total(values: RankMemory | ParameterCounts | Any) -> dict[str, Any]:
    return values._asdict() | {"total": values.total}
