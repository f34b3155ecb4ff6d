"""A layout in the words of the field, the same in the dry run, in the log and in a checkpoint."""

from __future__ import annotations

from contextlm.config.schema import Config


def layout_words(config: Config, world_size: int) -> str:
    """Such as `TP 2 x PP 2 x DP 4, interleaved 2, sequence parallel`."""
    parallel = config.parallel
    words = (
        f"TP {parallel.tensor_model_parallel_size} x PP {parallel.pipeline_model_parallel_size} "
        f"x DP {config.data_parallel_size(world_size)}"
    )
    if config.num_model_chunks > 1:
        words += f", interleaved {config.num_model_chunks}"
    return words + ", sequence parallel" if parallel.splits_sequence else words
