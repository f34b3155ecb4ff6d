"""Which layers each pipeline stage holds, as megatron-core divides them.

Read by the checks, the dry run and the memory formulas; the model itself asks megatron-core, and a test
compares the two.
"""

from __future__ import annotations

from contextlm.config.schema import Config


def stage_sizes(config: Config) -> list[int]:
    """Layers of each pipeline stage: those of the first and the last where they are given, else equal shares."""
    parallel, stages = config.parallel, config.parallel.pipeline_model_parallel_size
    first, last = parallel.decoder_first_pipeline_num_layers, parallel.decoder_last_pipeline_num_layers
    given = [size for size in (first, last) if size is not None]
    middle = stages - len(given)
    share = (config.model.num_layers - sum(given)) // middle if middle > 0 else 0
    sizes = [share] * middle
    return [*([] if first is None else [first]), *sizes, *([] if last is None else [last])]


def stage_parts(config: Config, stage: int) -> list[range]:
    """The layers, numbered from 0 over the whole model, of each model chunk of a stage, in order.

    One range without interleaving. With it, the model passes all stages once for each chunk: chunk 0 of every
    stage, then chunk 1 of every stage, and so on.
    """
    sizes, chunks = stage_sizes(config), config.num_model_chunks
    round_size = sum(sizes) // chunks
    start, size = sum(sizes[:stage]) // chunks, sizes[stage] // chunks
    return [range(chunk * round_size + start, chunk * round_size + start + size) for chunk in range(chunks)]
