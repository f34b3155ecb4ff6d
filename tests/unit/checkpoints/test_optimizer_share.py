"""Flat ranges of a weight, cut into boxes and described as parts of a tensor of its shape."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from megatron.core.dist_checkpointing import ShardedTensor

from contextlm.checkpoints.optimizer_share import boxes, rectangles


@pytest.mark.parametrize(
    ("shape", "most"), [((), 1), ((7,), 1), ((1,), 1), ((4, 5), 3), ((5, 1), 1), ((1, 6), 1), ((3, 2, 4), 5)]
)
def test_boxes_are_the_range_in_its_order(shape: tuple[int, ...], most: int) -> None:
    size = math.prod(shape)
    numbers = torch.arange(size).view(shape)
    counts = set()
    for start, stop in itertools.combinations(range(size + 1), 2):
        found = list(boxes(shape, start, stop))
        cut = [numbers[tuple(slice(a, a + n) for a, n in zip(*box, strict=True))] for box in found]
        assert [tuple(box.shape) for box in cut] == [extent for _, extent in found]
        assert torch.equal(torch.cat([box.flatten() for box in cut]), torch.arange(start, stop))
        counts.add(len(found))
    assert max(counts) == most


def test_two_ranks_fill_the_tensor_at_the_place_of_their_weight() -> None:
    """Of columns 4 to 7 of a matrix of 3 x 8; the first rank has 7 of the 12 elements."""
    data = torch.randn(3, 4)
    weight = ShardedTensor.from_rank_offsets("w", data.bfloat16(), (1, 1, 2), replica_id=(0, 0, 1))
    flat = data.flatten()
    whole = torch.zeros(3, 8)
    parts = [*rectangles("state.w", weight, flat[:7], 0), *rectangles("state.w", weight, flat[7:], 7)]
    for part in parts:
        whole[part.global_slice()] += part.data
        assert part.key == "state.w" and part.global_shape == (3, 8) and part.replica_id == (0, 0, 0)
        assert part.dtype == torch.float32 and not part.has_regular_grid
        assert part.data.untyped_storage().data_ptr() == flat.untyped_storage().data_ptr()
    assert torch.equal(whole, torch.cat([torch.zeros(3, 4), data], dim=1))
    assert [part.global_offset for part in parts] == [(0, 4), (1, 4), (1, 7), (2, 4)]
