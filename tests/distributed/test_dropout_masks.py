"""Dropout draws equal numbers where tensor-parallel ranks hold the same values, and others where they do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.distributed.dropout_cases import masks
from tests.distributed.layouts import LAYOUTS
from tests.distributed.pool import Pool


def found(pool: Pool, layout: str) -> list[Mapping[str, np.ndarray]]:
    world_size, parallel = LAYOUTS[layout]
    values: dict[str, Any] = {"seq_length": 64, "micro_batch_size": 2, "global_batch_size": 2}
    return pool.run(masks, world_size, values=values | parallel)


def test_ranks_that_share_the_sequence_drop_other_units(pool: Pool) -> None:
    """But for the predictor, whose chunks every rank holds."""
    first, second = found(pool, "TP2 SP")
    assert first.keys() == second.keys() and len(first) == 1 + 4 + 2
    for name, ones in first.items():
        assert len(np.unique(ones)) > 1, f"{name}: nothing is dropped"
        same = np.array_equal(ones, second[name])
        assert same == ("predictor" in name), name


def test_ranks_that_hold_the_whole_sequence_drop_the_same(pool: Pool) -> None:
    first, second = found(pool, "TP2")
    assert len(first) == 7
    for name, ones in first.items():
        assert len(np.unique(ones)) > 1 and np.array_equal(ones, second[name]), name
