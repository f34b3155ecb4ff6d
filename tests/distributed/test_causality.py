"""No token sees a later one, bit for bit, where ranks share the work of one forward pass."""

from __future__ import annotations

import pytest

from tests.distributed.causality_cases import leaks
from tests.distributed.layouts import LAYOUTS
from tests.distributed.pool import Pool
from tests.small_configs import BACKBONES


@pytest.mark.parametrize("layout", [pytest.param("TP2", marks=pytest.mark.full), "TP2 SP"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_no_token_sees_a_later_one(pool: Pool, backbone: str, layout: str) -> None:
    """17 tokens on a rank, so that chunks of 4 straddle the ranks."""
    world_size, parallel = LAYOUTS[layout]
    arguments = {"backbone": backbone, "values": parallel | {"seq_length": 34}}
    assert pool.run(leaks, world_size, **arguments) == [[], []]
    assert all(pool.run(leaks, world_size, **arguments, off_by_one=True))
