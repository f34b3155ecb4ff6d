"""What the context head exchanges under sequence parallelism; nothing without it.

Each tensor-parallel rank then holds consecutive tokens of every sequence, while a chunk may lie on two ranks and
a prediction is needed on others than those that hold its chunk. Tokens are never sent: the ranks add up their
shares of the contexts, [C, B, H] once forward and once backward, and each runs the predictor on all chunks, as
tensor parallel as any layer.

Shapes: T tokens of this rank, B batch, H hidden, C chunks of the whole sequence.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.tensor_parallel import get_cuda_rng_tracker, random
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    reduce_from_tensor_model_parallel_region,
)
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor


class SequenceExchange:
    """The exchange over the tensor-parallel ranks, if the sequence is split over them.

    Args:
        pg_collection: process groups of the model.
        config: the backbone's layer configuration.
    """

    def __init__(self, pg_collection: ProcessGroupCollection, config: TransformerConfig) -> None:
        self.group = pg_collection.tp
        self.is_split = config.sequence_parallel
        self.has_dropout = config.hidden_dropout > 0 or config.attention_dropout > 0

    def place(self, num_tokens: int) -> tuple[int, int]:
        """Position of this rank's first token and length of the whole sequence, with `num_tokens` on each rank."""
        if not self.is_split:
            return 0, num_tokens
        return self.group.rank() * num_tokens, self.group.size() * num_tokens

    def sum_shares(self, share_CBH: Tensor) -> Tensor:
        """The contexts on every rank; backward, each rank's share takes the whole gradient."""
        return reduce_from_tensor_model_parallel_region(share_CBH, group=self.group) if self.is_split else share_CBH

    def to_every_part(self, prediction_CBH: Tensor) -> Tensor:
        """The same predictions; backward, their gradient is summed over the ranks, whose tokens differ."""
        if not self.is_split:
            return prediction_CBH
        return copy_to_tensor_model_parallel_region(prediction_CBH, group=self.group)

    @contextlib.contextmanager
    def same_random_numbers(self) -> Iterator[None]:
        """Dropout inside draws the same numbers on every rank: all of them hold the same chunks.

        Around it each rank draws from the tracker's own state, since its tokens differ. In a recomputation
        megatron-core has restored that state but not its name, so it is put back here by hand.
        """
        if not (self.is_split and self.has_dropout):
            yield
            return
        tracker, own = get_cuda_rng_tracker(), random._MODEL_PARALLEL_RNG_TRACKER_NAME
        tracker.set_states(tracker.get_states() | {own: random._get_cuda_rng_state()})
        with tracker.fork(random.get_data_parallel_rng_tracker_name()):
            yield
        random._set_cuda_rng_state(tracker.get_states()[own])
