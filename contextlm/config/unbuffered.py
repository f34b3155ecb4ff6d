"""Whether an iteration adds up gradients: of micro-batches, or of other ranks."""

from __future__ import annotations

from contextlm.config.schema import Config


def adds_nothing_up(config: Config, num_ranks: int) -> bool:
    """Whether bf16 gradients are final when autograd has them: one rank, and never more than one micro-batch.

    Args:
        config: the resolved configuration.
        num_ranks: of the whole run.
    """
    training = config.training
    return (
        num_ranks == 1
        and training.bf16
        and not training.rampup_batch_size
        and config.num_microbatches(num_ranks) == 1
        and not config.parallel.overlap_param_gather
    )
