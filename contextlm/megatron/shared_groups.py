"""Groups of the same ranks are one process group.

What is wrong: `initialize_model_parallel` (parallel_state.py:548) makes 17 process groups, most of them of the same
ranks: on one GPU all of them, and none of the experts' is ever used here. Each is an NCCL communicator, and holds
memory of the GPU beside torch's: 7.75 GiB lay there on one GPU, and over 3 less since.
The mend: one group for each set of ranks. The default one stays apart: an interleaved pipeline of two sends one way
over it, and the other over its own (pipeline_parallel/p2p_communication.py:74).
Test: tests/distributed/test_shared_groups.py; on CUDA tests/gpu/test_memory_peak.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from megatron.core import parallel_state


@contextlib.contextmanager
def of_the_same_ranks() -> Iterator[None]:
    """Inside, megatron-core's groups are made so. Every rank makes the same sets of ranks in the same order."""
    create = parallel_state.create_group
    made: dict[Any, Any] = {}

    def create_once(ranks: Sequence[int], *, group_desc: str, **options: Any) -> Any:
        key = frozenset(ranks), frozenset(option for option in options.items() if option[1] is not None)
        if key not in made:
            made[key] = create(ranks, group_desc=f"{len(ranks)} RANKS FROM {min(ranks)}", **options)
        return made[key]

    parallel_state.create_group = create_once
    try:
        yield
    finally:
        parallel_state.create_group = create
