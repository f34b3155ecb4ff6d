"""How the processes are split: tensor-parallel inside data-parallel inside pipeline stages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from megatron.core import parallel_state
from megatron.core.process_groups_config import ProcessGroupCollection

from contextlm.config.schema import ParallelConfig
from contextlm.megatron import shared_groups


@dataclass(frozen=True)
class Layout:
    """The groups of this rank and its place in them."""

    groups: ProcessGroupCollection

    @property
    def tensor_rank(self) -> int:
        """Place among the ranks that share each matrix."""
        return self.groups.tp.rank()

    @property
    def pipeline_rank(self) -> int:
        """Stage of the pipeline."""
        return self.groups.pp.rank()

    @property
    def data_rank(self) -> int:
        """Which copy of the model this rank belongs to."""
        return self.groups.dp.rank()

    @property
    def data_parallel_size(self) -> int:
        """Copies of the model."""
        return self.groups.dp.size()

    @property
    def is_last_stage(self) -> bool:
        """Whether this rank computes the loss."""
        return self.groups.pp.rank() == self.groups.pp.size() - 1

    @property
    def is_last_rank(self) -> bool:
        """Whether this rank prints the log lines."""
        return torch.distributed.get_rank() == torch.distributed.get_world_size() - 1


@contextlib.contextmanager
def model_parallel(parallel: ParallelConfig) -> Iterator[Layout]:
    """Make the groups of a layout; the process group must have been started. They end on leaving."""
    with shared_groups.of_the_same_ranks():
        parallel_state.initialize_model_parallel(
            tensor_model_parallel_size=parallel.tensor_model_parallel_size,
            pipeline_model_parallel_size=parallel.pipeline_model_parallel_size,
            create_gloo_process_groups=False,
            distributed_timeout_minutes=parallel.distributed_timeout_minutes,
        )
    try:
        yield Layout(ProcessGroupCollection.use_mpu_process_groups())
    finally:
        parallel_state.destroy_model_parallel()
