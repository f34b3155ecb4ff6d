"""The other way through a linear layer, in a test of one rank."""

from __future__ import annotations

import pytest


def take_the_way_of_shared_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on layers multiply as they do where tensor-parallel ranks share a matrix."""
    from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear

    from contextlm.model.linear import ColumnLinear, RowLinear

    for ours, stock in ((ColumnLinear, ColumnParallelLinear), (RowLinear, RowParallelLinear)):
        monkeypatch.setattr(ours, "forward", stock.forward)
