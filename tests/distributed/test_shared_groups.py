"""Groups of the same ranks are one, and each is of the ranks that it was of (contextlm/megatron/shared_groups.py)."""

from __future__ import annotations

import contextlib
from typing import Any
from unittest import mock

import pytest

from tests.distributed.pool import Pool


def groups(sizes: dict[str, int], mended: bool = True) -> tuple[list[tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """The ranks of each process group that this rank is in but the default one, and of the layout's groups by name."""
    from torch.distributed import distributed_c10d, get_process_group_ranks

    from contextlm.config.schema import ParallelConfig
    from contextlm.megatron import shared_groups
    from contextlm.parallel import runtime
    from contextlm.parallel.layout import model_parallel

    parallel = ParallelConfig(**sizes)
    with contextlib.ExitStack() as stack:
        stack.enter_context(runtime.start(parallel))
        if not mended:
            stack.enter_context(mock.patch.object(shared_groups, "of_the_same_ranks", contextlib.nullcontext))
        layout = stack.enter_context(model_parallel(parallel))
        named: dict[str, Any] = vars(layout.groups)
        _, *made = (tuple(get_process_group_ranks(group)) for group in distributed_c10d._world.pg_map)
        return made, {name: tuple(get_process_group_ranks(g)) for name, g in named.items() if g is not None}


# Ranks, tensor-parallel size, stages of the pipeline, sets of ranks that one of them is in.
LAYOUTS = [(1, 1, 1, 1), (2, 1, 1, 2), (2, 2, 1, 2), (4, 2, 1, 4), (4, 2, 2, 4), (4, 1, 2, 4), (3, 1, 3, 3)]


@pytest.mark.parametrize(("ranks", "tensor", "pipeline", "count"), LAYOUTS)
def test_groups_are_of_the_same_ranks_as_ever(pool: Pool, ranks: int, tensor: int, pipeline: int, count: int) -> None:
    sizes = {"tensor_model_parallel_size": tensor, "pipeline_model_parallel_size": pipeline}
    found = pool.run(groups, ranks, sizes=sizes)
    stock = pool.run(groups, ranks, sizes=sizes, mended=False)
    for (made, named), (stock_made, stock_named) in zip(found, stock, strict=True):
        assert named == stock_named and "tp" in named
        assert len(made) == len(set(made)), made
        assert set(made) == set(stock_made) and len(stock_made) >= 15
    assert len(found[0][0]) == count
