"""Checks of how the layers are divided over pipeline stages, and over the model chunks of a stage."""

from __future__ import annotations

import math

from contextlm.config.pipeline import stage_sizes
from contextlm.config.schema import Config
from contextlm.config.suggestions import divisors, nearest_numbers


def pipeline_problems(config: Config) -> list[str]:
    """What is wrong with the division; chunks are looked at only where the stages are right."""
    return _stages(config) or _chunks(config)


def stages_origin(config: Config) -> str:
    """The flags that the sizes of the stages follow from, with their values."""
    flags = {
        "--num-layers": config.model.num_layers,
        "--pipeline-model-parallel-size": config.parallel.pipeline_model_parallel_size,
        **_uneven(config),
    }
    return ", ".join(f"{flag} {size}" for flag, size in flags.items())


def chunks_origin(config: Config) -> str:
    """The flags that the sizes of the model chunks follow from, with their values."""
    flags = {
        "--num-layers-per-virtual-pipeline-stage": config.parallel.num_layers_per_virtual_pipeline_stage,
        "--num-virtual-stages-per-pipeline-rank": config.parallel.num_virtual_stages_per_pipeline_rank,
    }
    given = [f"{flag} {size}" for flag, size in flags.items() if size is not None]
    return ", ".join([stages_origin(config), *given])


def _uneven(config: Config) -> dict[str, int]:
    """Sizes that are given for single stages."""
    sizes = {
        "--decoder-first-pipeline-num-layers": config.parallel.decoder_first_pipeline_num_layers,
        "--decoder-last-pipeline-num-layers": config.parallel.decoder_last_pipeline_num_layers,
    }
    return {flag: size for flag, size in sizes.items() if size is not None}


def _named(given: dict[str, int]) -> str:
    return " and ".join(f"{flag} {size}" for flag, size in given.items())


def _stages(config: Config) -> list[str]:
    layers, stages = config.model.num_layers, config.parallel.pipeline_model_parallel_size
    if given := _uneven(config):
        return _uneven_stages(given, layers, stages)
    if layers % stages == 0:
        return []
    near = nearest_numbers(stages, divisors(layers))
    return [
        f"--pipeline-model-parallel-size {stages}: does not divide --num-layers {layers}; use {near}, or uneven "
        "pipeline stages (--decoder-first-pipeline-num-layers, --decoder-last-pipeline-num-layers)"
    ]


def _uneven_stages(given: dict[str, int], layers: int, stages: int) -> list[str]:
    """The first or last stage, or both, have sizes of their own; the others, if any, share the rest equally."""
    named = _named(given)
    if stages == 1:
        return [
            f"{named}: the only pipeline stage holds all layers; use --pipeline-model-parallel-size 2 or more, or "
            f"drop {'it' if len(given) == 1 else 'both'}"
        ]
    if stages > layers:
        return [
            f"--pipeline-model-parallel-size {stages}: more pipeline stages than --num-layers {layers}; "
            f"use at most {layers}"
        ]
    others, total = stages - len(given), sum(given.values())

    def works(total: int) -> bool:
        left = layers - total
        return left == 0 if others == 0 else left >= others and left % others == 0

    if works(total):
        return []
    near = nearest_numbers(total, filter(works, range(len(given), layers + 1)))
    if others == 0:
        why = f"add up to {total}, but two pipeline stages must hold all --num-layers {layers}"
    else:
        leave, stage, equally = ("leaves" if len(given) == 1 else "leave"), "pipeline stage", ""
        if others > 1:
            stage, equally = "pipeline stages", "equally many and "
        why = (
            f"{leave} {max(layers - total, 0)} of --num-layers {layers} to {others} other {stage} "
            f"(--pipeline-model-parallel-size {stages}), which must hold {equally}at least one"
        )
    return [f"{named}: {why}; use {near if len(given) == 1 else f'two numbers that add up to {near}'}"]


def _chunks(config: Config) -> list[str]:
    """More than one model chunk on each stage: an interleaved pipeline."""
    layers = config.parallel.num_layers_per_virtual_pipeline_stage
    count = config.parallel.num_virtual_stages_per_pipeline_rank
    if layers is not None and count is not None:
        return [
            f"--num-layers-per-virtual-pipeline-stage {layers} and --num-virtual-stages-per-pipeline-rank {count}: "
            "two ways to say the same; keep one"
        ]
    if layers is not None:
        return _layers_of_a_chunk(config, layers)
    return [] if count is None else _chunks_of_a_stage(config, count)


def _layers_of_a_chunk(config: Config, layers: int) -> list[str]:
    flag = f"--num-layers-per-virtual-pipeline-stage {layers}"
    if given := _uneven(config):
        return [
            f"{flag}: with {_named(given)} pipeline stages may differ in size; use "
            "--num-virtual-stages-per-pipeline-rank instead"
        ]
    size, *others = stage_sizes(config)
    if not others and layers != size:
        return [_nothing_to_interleave(flag)]
    if size % layers == 0:
        return []
    near = nearest_numbers(layers, divisors(size))
    return [f"{flag}: does not divide the {size} layers of a pipeline stage ({stages_origin(config)}); use {near}"]


def _chunks_of_a_stage(config: Config, count: int) -> list[str]:
    flag, sizes = f"--num-virtual-stages-per-pipeline-rank {count}", stage_sizes(config)
    if len(sizes) == 1 and count > 1:
        return [_nothing_to_interleave(flag)]
    if len(sizes) == len(given := _uneven(config)) and count > 1:
        # megatron-core would divide by the number of other stages.
        return [
            f"{_named(given)}: one of them tells the sizes of two pipeline stages, and {flag} takes only one; "
            "drop the last"
        ]
    common = math.gcd(*sizes)
    if common % count == 0:
        return []
    shown = " or ".join(str(size) for size in sorted(set(sizes)))
    near = nearest_numbers(count, divisors(common))
    return [f"{flag}: does not divide the {shown} layers of each pipeline stage ({stages_origin(config)}); use {near}"]


def _nothing_to_interleave(flag: str) -> str:
    return (
        f"{flag}: one pipeline stage has nothing to interleave with; use --pipeline-model-parallel-size 2 or more, "
        "or drop it"
    )
