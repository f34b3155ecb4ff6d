"""One gradient of one rank overflows in fp16: all ranks skip the iteration and lower their loss scale, or none does.

The rank is the only one that can see it: the first pipeline stage, or the second part of a matrix.
"""

from __future__ import annotations

import pytest

from tests.distributed.layouts import LAYOUTS
from tests.distributed.matrix import OPTIMIZERS
from tests.distributed.overflow_cases import SCALE, Iteration, overflow
from tests.distributed.pool import Pool

WHERE = {"PP2": 0, "TP2 SP": 1}
UPDATED = Iteration(skipped=False, loss_scale=SCALE, changed_weights=True)
SKIPPED = Iteration(skipped=True, loss_scale=SCALE / 2, changed_weights=False)
LOWERED = UPDATED._replace(loss_scale=SCALE / 2)


@pytest.mark.parametrize(
    ("layout", "optimizer"),
    [
        ("PP2", "distributed"),
        ("TP2 SP", "plain"),
        pytest.param("PP2", "plain", marks=pytest.mark.full),
        pytest.param("TP2 SP", "distributed", marks=pytest.mark.full),
    ],
)
def test_all_ranks_skip_what_overflows_on_one(pool: Pool, layout: str, optimizer: str) -> None:
    values = LAYOUTS[layout][1] | OPTIMIZERS[optimizer]
    assert pool.run(overflow, 2, values=values, rank=WHERE[layout]) == [([UPDATED, SKIPPED, LOWERED], [])] * 2


@pytest.mark.parametrize("layout", ["PP2", pytest.param("TP2 SP", marks=pytest.mark.full)])
def test_a_rank_that_does_not_hear_of_it_is_noticed(pool: Pool, layout: str) -> None:
    ranks = pool.run(overflow, 2, values=LAYOUTS[layout][1], rank=WHERE[layout], alone=True)
    for rank, (iterations, _) in enumerate(ranks):
        assert iterations == [UPDATED, SKIPPED if rank == WHERE[layout] else UPDATED]
