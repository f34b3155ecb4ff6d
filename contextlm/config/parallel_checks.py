"""Checks of tensor and data parallelism, and of the number of processes."""

from __future__ import annotations

from contextlm.config.schema import Config, ParallelConfig
from contextlm.config.suggestions import divisors, nearest_multiples, nearest_numbers


def parallel_problems(config: Config, world_size: int) -> list[str]:
    """What is wrong with the layout, apart from the pipeline's stages (`pipeline_checks.py`)."""
    return [
        *_tensor(config),
        *_sequence(config),
        *_processes(config.parallel, world_size),
        *_optimizer(config),
        *_hang_timeout(config.parallel),
    ]


def _tensor(config: Config) -> list[str]:
    model, tensor = config.model, config.parallel.tensor_model_parallel_size
    shared = {
        "--num-attention-heads": model.num_attention_heads,
        "--hidden-size": model.hidden_size,
        "--ffn-hidden-size": model.ffn_size,
    }
    undivided = [f"{flag} {size}" for flag, size in shared.items() if size % tensor]
    if not undivided:
        return []
    near = nearest_numbers(tensor, divisors(*shared.values()))
    return [f"--tensor-model-parallel-size {tensor}: does not divide {' and '.join(undivided)}; use {near}"]


def _sequence(config: Config) -> list[str]:
    length, tensor = config.model.seq_length, config.parallel.tensor_model_parallel_size
    if not config.parallel.splits_sequence or length % tensor == 0:
        return []
    return [
        f"--seq-length {length}: --sequence-parallel gives each of --tensor-model-parallel-size {tensor} ranks an "
        f"equal part of it; use {nearest_multiples(length, tensor)}"
    ]


def _processes(parallel: ParallelConfig, world_size: int) -> list[str]:
    size = parallel.model_parallel_size
    if world_size % size == 0:
        return []
    return [
        f"--tensor-model-parallel-size {parallel.tensor_model_parallel_size} x --pipeline-model-parallel-size "
        f"{parallel.pipeline_model_parallel_size}: {world_size} process{'es are' if world_size > 1 else ' is'} no "
        f"multiple of {size}; start {nearest_multiples(world_size, size)} (torchrun --nproc-per-node)"
    ]


def _hang_timeout(parallel: ParallelConfig) -> list[str]:
    limit, minutes = parallel.hang_limit_seconds, parallel.distributed_timeout_minutes
    if 1.5 * limit < 60 * minutes:
        return []
    return [
        f"--hang-timeout-seconds {limit:g}: the run would end after half as long again, but "
        f"--distributed-timeout-minutes {minutes} ends it before; use at most {39 * minutes} seconds, or more minutes"
    ]


def _optimizer(config: Config) -> list[str]:
    parallel, context = config.parallel, config.context
    problems: list[str] = []
    if parallel.overlap_grad_reduce and context.context_chunk_size > config.model.seq_length:
        problems.append(
            f"--context-chunk-size {context.context_chunk_size}: longer than --seq-length {config.model.seq_length}, "
            "so that the predictor gets no gradients, which --overlap-grad-reduce waits for; drop that, or use chunks "
            f"of at most {config.model.seq_length} tokens"
        )
    if not parallel.overlap_param_gather:
        return problems
    if not parallel.use_distributed_optimizer:
        problems.append(
            "--overlap-param-gather: gathers what the ranks of the distributed optimizer update; drop it or "
            "--no-use-distributed-optimizer"
        )
    if not parallel.overlap_grad_reduce:
        problems.append(
            "--overlap-param-gather: works in the buckets of --overlap-grad-reduce; add --overlap-grad-reduce"
        )
    return problems
