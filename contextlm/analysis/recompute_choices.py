"""What may be computed again in the backward pass: the choices side by side, from the fastest to the smallest."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from contextlm.analysis.execution import execution
from contextlm.analysis.memory import RankMemory, rank_memory
from contextlm.analysis.stage_work import stage_work
from contextlm.config.pipeline import stage_parts
from contextlm.config.schema import Config

CHOICES = ("nothing", "attention", "attention and MLP", "half of the layers", "every layer")


class Choice(NamedTuple):
    """One of them.

    Attributes:
        stage: which holds most.
        memory: of a rank of that stage.
        compiled: "model", "layer" or "off".
        more_work: operations computed again, relative to those of training without.
    """

    name: str
    config: Config
    stage: int
    memory: RankMemory
    compiled: str
    more_work: float


def compare_choices(config: Config, vocab_size: int, world_size: int) -> list[Choice]:
    """All choices for one configuration, what it chooses itself set aside."""
    found = []
    for name in CHOICES:
        chosen = with_choice(config, name)
        stages = range(config.parallel.pipeline_model_parallel_size)
        memories = [rank_memory(chosen, vocab_size, stage, world_size) for stage in stages]
        stage = max(stages, key=lambda stage: memories[stage].total)
        works = stage_work(chosen, vocab_size)
        more = sum(work.again for work in works) / sum(3 * work.forward for work in works)
        compiled = execution(chosen, world_size, on_cuda=True).compiled
        found.append(Choice(name, chosen, stage, memories[stage], compiled, more))
    return found


def with_choice(config: Config, name: str) -> Config:
    """The configuration with one of CHOICES."""
    granularity = method = layers = None
    modules: tuple[str, ...] = ("core_attn",)
    if name == "attention":
        granularity = "selective"
    elif name == "attention and MLP":
        granularity, modules = "selective", ("core_attn", "mlp")
    elif name == "half of the layers":
        granularity, method, layers = "full", "block", max(1, len(stage_parts(config, 0)[0]) // 2)
    elif name == "every layer":
        granularity, method, layers = "full", "uniform", 1
    training = dataclasses.replace(
        config.training,
        recompute_granularity=granularity,
        recompute_method=method,
        recompute_num_layers=layers,
        recompute_modules=modules,
    )
    return dataclasses.replace(config, training=training)


def recompute_flags(config: Config) -> list[str]:
    """The flags of what a configuration computes again."""
    training = config.training
    if training.recompute_granularity is None:
        return []
    if training.recompute_granularity == "selective":
        modules = training.recompute_modules
        more = [] if modules == ("core_attn",) else [f"--recompute-modules {' '.join(modules)}"]
        return ["--recompute-granularity selective", *more]
    return [
        "--recompute-granularity full",
        f"--recompute-method {training.recompute_method}",
        f"--recompute-num-layers {training.recompute_num_layers}",
    ]
