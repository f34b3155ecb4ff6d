"""Which options would save the most memory of a rank, for one configuration: those not in use already, and allowed.

By the formulas of `memory.py`, for the worst stage of the pipeline. The optimizer steps stay what they are: the global
batch keeps its size. Only `--bf16` changes the arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from contextlm.analysis.memory import fullest
from contextlm.config.batch_ramp import with_batch_size
from contextlm.config.schema import Config
from contextlm.config.validation import validate

_LEAST = 0.01  # of a rank's memory, below which a change is no help


class Saver(NamedTuple):
    """Options to add or to change, and how many bytes of the fullest rank they save."""

    options: str
    saved: int


def memory_savers(config: Config, vocab_size: int, world_size: int, *, on_cuda: bool = True) -> list[Saver]:
    """What would help, most first; empty where nothing is left to try."""
    config = with_batch_size(config, world_size)
    before = fullest(config, vocab_size, world_size, on_cuda=on_cuda).total
    known = set(validate(config, world_size, dry_run=True))
    found = []
    for options, changed in _changes(config):
        if set(validate(changed, world_size, dry_run=True)) <= known:
            found.append(Saver(options, before - fullest(changed, vocab_size, world_size, on_cuda=on_cuda).total))
    return sorted((saver for saver in found if saver.saved > _LEAST * before), key=lambda saver: -saver.saved)


def _changes(config: Config) -> Iterator[tuple[str, Config]]:
    """Options, and the configuration with them; some may not be allowed here."""
    training, parallel = config.training, config.parallel
    tensor, stages = parallel.tensor_model_parallel_size, parallel.pipeline_model_parallel_size
    if training.micro_batch_size > 1:
        size = training.micro_batch_size
        half = size // 2 if size % 2 == 0 else 1
        yield f"--micro-batch-size {half}", _with(config, "training", micro_batch_size=half)
    if training.recompute_granularity is None:
        full = {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}
        words = "--recompute-granularity full --recompute-method uniform --recompute-num-layers 1"
        yield words, _with(config, "training", **full)
    if not config.half_precision:
        yield "--bf16", _with(config, "training", bf16=True)
    if not parallel.use_distributed_optimizer:
        yield "--use-distributed-optimizer", _with(config, "parallel", use_distributed_optimizer=True)
    if config.half_precision and parallel.accumulate_allreduce_grads_in_fp32:
        words = "--no-accumulate-allreduce-grads-in-fp32"
        yield words, _with(config, "parallel", accumulate_allreduce_grads_in_fp32=False)
    if tensor > 1 and not parallel.sequence_parallel:
        yield "--sequence-parallel", _with(config, "parallel", sequence_parallel=True)
    yield f"--tensor-model-parallel-size {2 * tensor}", _with(config, "parallel", tensor_model_parallel_size=2 * tensor)
    deeper = _with(config, "parallel", pipeline_model_parallel_size=2 * stages)
    yield f"--pipeline-model-parallel-size {2 * stages}", deeper


def _with(config: Config, section: str, **values: Any) -> Config:
    return replace(config, **{section: replace(getattr(config, section), **values)})
