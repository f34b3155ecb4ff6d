"""Which layouts fit the memory of given GPUs, the fastest first by `step_time.py`.

All sizes of tensor, pipeline and data parallelism are looked at, with stages of equal size, a smaller last stage (for
the output layer is work too) or several model chunks, with every micro-batch size that divides the batch and every
choice of recomputation. What the configuration's own checks forbid is left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

from contextlm.analysis.memory import RankMemory, fullest
from contextlm.analysis.recompute_choices import CHOICES, recompute_flags, with_choice
from contextlm.analysis.step_time import Machine, StepTime, step_time
from contextlm.config.schema import Config, ParallelConfig
from contextlm.config.suggestions import divisors
from contextlm.config.validation import validate

USABLE = 0.9  # of a GPU's memory; the rest is for CUDA, NCCL and what the allocator cannot use
_MOST_SAMPLES = 64  # of a micro-batch
_LAYOUT_FIELDS = (
    "tensor_model_parallel_size",
    "pipeline_model_parallel_size",
    "sequence_parallel",
    "num_virtual_stages_per_pipeline_rank",
    "num_layers_per_virtual_pipeline_stage",
    "decoder_first_pipeline_num_layers",
    "decoder_last_pipeline_num_layers",
)


class Fit(NamedTuple):
    """A configuration that fits.

    Attributes:
        memory: of a rank of its fullest stage.
        time: of its step.
    """

    config: Config
    memory: RankMemory
    time: StepTime


def fits(
    config: Config, vocab_size: int, world_size: int, machine: Machine, memory_bytes: float, most: int = 5
) -> list[Fit]:
    """The fastest configurations, one for each tensor- and pipeline-parallel size.

    Args:
        config: model, batch and precision; its layout, micro-batch size and recomputation are set aside.
        vocab_size: unpadded.
        world_size: GPUs.
        machine: what they do.
        memory_bytes: of one GPU, of which a part is usable.
        most: layouts at most.
    """
    limit = usable(memory_bytes)
    found: dict[tuple[int, int], Fit] = {}
    for time, candidate in _by_time(config, vocab_size, world_size, machine, limit):
        parallel = candidate.parallel
        layout = (parallel.tensor_model_parallel_size, parallel.pipeline_model_parallel_size)
        if layout in found:
            continue
        memory = fullest(candidate, vocab_size, world_size)
        if memory.total <= limit and not validate(candidate, world_size, dry_run=True):
            found[layout] = Fit(candidate, memory, time)
        if len(found) == most:
            break
    return list(found.values())


def usable(memory_bytes: float) -> float:
    """Of a GPU's memory, what tensors may fill."""
    return USABLE * memory_bytes


def naive(config: Config) -> Config:
    """What one would try first: data parallelism alone, nothing computed again."""
    return with_choice(_with_layout(config), "nothing")


def with_whole_micro_batches(config: Config, world_size: int) -> Config:
    """The configuration with a batch that its micro-batches divide: what it holds can be said of such a one only."""
    together = config.training.micro_batch_size * config.data_parallel_size(world_size)
    batch = -(-config.global_batch_size(world_size) // together) * together
    return dataclasses.replace(config, training=dataclasses.replace(config.training, global_batch_size=batch))


def layout_flags(config: Config) -> list[str]:
    """The flags of a layout, a micro-batch size and a recomputation, as `fits` chooses them."""
    parallel = config.parallel
    words = {
        "tensor-model-parallel-size": parallel.tensor_model_parallel_size,
        "pipeline-model-parallel-size": parallel.pipeline_model_parallel_size,
        "num-virtual-stages-per-pipeline-rank": parallel.num_virtual_stages_per_pipeline_rank,
        "decoder-last-pipeline-num-layers": parallel.decoder_last_pipeline_num_layers,
        "micro-batch-size": config.training.micro_batch_size,
    }
    flags = [f"--{flag} {value}" for flag, value in words.items() if value is not None]
    return [*flags, *(["--sequence-parallel"] if parallel.sequence_parallel else []), *recompute_flags(config)]


def _by_time(
    config: Config, vocab_size: int, world_size: int, machine: Machine, limit: float
) -> list[tuple[StepTime, Config]]:
    """All candidates of layouts in which at least the smallest fits, the fastest first.

    Of equals, as far as three digits tell, the simpler layout, then the larger micro-batch.
    """
    found = []
    for layout in _layouts(config, world_size, machine.per_node):
        copies = layout.data_parallel_size(world_size)
        batch, rest = divmod(layout.global_batch_size(world_size), copies)
        sizes = [] if rest else [size for size in divisors(batch) if size <= _MOST_SAMPLES]
        if not sizes or fullest(_smallest(layout), vocab_size, world_size).total > limit:
            continue
        for size in sizes:
            for place, name in enumerate(CHOICES):
                candidate = with_choice(_with_samples(layout, size), name)
                time = step_time(candidate, vocab_size, world_size, machine)
                order = (float(f"{time.total:.2e}"), layout.parallel.pipeline_model_parallel_size, place, -size)
                found.append((order, time, candidate))
    found.sort(key=lambda entry: entry[0])
    return [(time, candidate) for _, time, candidate in found]


def _layouts(config: Config, world_size: int, per_node: int) -> Iterator[Config]:
    """Every way to divide the model; with tensor parallelism the sequence is shared where it can be."""
    model = config.model
    for tensor in divisors(model.num_attention_heads, model.hidden_size, model.ffn_size):
        for stages in divisors(world_size // tensor) if tensor <= per_node and world_size % tensor == 0 else ():
            if stages > model.num_layers:
                break
            shares = tensor > 1 and model.seq_length % tensor == 0
            for chunks, last in _divisions(model.num_layers, stages):
                yield _with_layout(
                    config,
                    tensor_model_parallel_size=tensor,
                    pipeline_model_parallel_size=stages,
                    sequence_parallel=shares,
                    num_virtual_stages_per_pipeline_rank=chunks,
                    decoder_last_pipeline_num_layers=last,
                )


def _divisions(layers: int, stages: int) -> Iterator[tuple[int | None, int | None]]:
    """Model chunks of a stage, and layers of the last stage, where they are not one and an equal share."""
    if layers % stages == 0:
        yield None, None
        for chunks in divisors(layers // stages)[1:] if stages > 1 else ():
            yield chunks, None
    for last in range(1, -(-layers // stages)) if stages > 1 else ():
        if (layers - last) % (stages - 1) == 0:
            yield None, last


def _with_layout(config: Config, **values: int | bool | None) -> Config:
    defaults = {name: getattr(ParallelConfig(), name) for name in _LAYOUT_FIELDS}
    return dataclasses.replace(config, parallel=dataclasses.replace(config.parallel, **defaults | values))


def _with_samples(config: Config, micro_batch_size: int) -> Config:
    return dataclasses.replace(config, training=dataclasses.replace(config.training, micro_batch_size=micro_batch_size))


def _smallest(layout: Config) -> Config:
    return with_choice(_with_samples(layout, 1), "every layer")
