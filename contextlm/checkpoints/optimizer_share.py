"""One rank's share of the distributed optimizer's state, as a checkpoint holds it: nothing is gathered.

A data-parallel rank has, of some weights, a flat range of elements each. On disk the state has the shape of the
weights, and a flat range of a matrix is at most three rectangles of it: the end of a row, whole rows, the beginning of
a row. megatron-core's own form of the same files, `fully_reshardable`, has the tensors whole: it gathers the state of
the stage on every rank to write them, and reads it whole on every rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import ShardedStateDict, ShardedTensor
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer, Range
from torch import Tensor
from torch.nn import Parameter

Shape = tuple[int, ...]


def share(
    optimizer: DistributedOptimizer, weights: ShardedStateDict, prefix: str
) -> dict[str, dict[str, list[ShardedTensor]]]:
    """Moments and masters that this rank has, by weight and kind; they are views: what is read into them is restored.

    Args:
        optimizer: of this rank's stage.
        weights: the sharded state of its weights.
        prefix: of the keys, which are `<prefix><kind>.<weight>`.
    """
    described: dict[Parameter, ShardedTensor] = {sharded.data: sharded for sharded in nested_values(weights)}
    found = {}
    for weight, elements in _held(optimizer):
        whole, held = described[weight], optimizer._get_main_param_and_optimizer_states(weight)
        found[whole.key] = {
            kind: rectangles(f"{prefix}{kind}.{whole.key}", whole, flat.detach(), elements.start)
            for kind, flat in held.items()
        }
    return found


def rectangles(key: str, weight: ShardedTensor, flat: Tensor, start: int) -> list[ShardedTensor]:
    """Describe a flat range of a weight as parts of a tensor of its shape.

    Args:
        key: of that tensor.
        weight: what this rank has of it.
        flat: values of some of its elements, counted row by row, from `start` on.
    """
    assert not weight.prepend_axis_num
    found, begin = [], 0
    for offset, size in boxes(weight.local_shape, start, start + flat.numel()):
        end = begin + math.prod(size)
        part = replace(
            weight,
            key=key,
            data=flat[begin:end].view(size),
            dtype=flat.dtype,
            local_shape=size,
            global_offset=tuple(a + b for a, b in zip(weight.global_offset, offset, strict=True)),
            axis_fragmentations=None,  # no regular grid; torch checks that the parts of all ranks fill the tensor
            replica_id=(*weight.replica_id[:-1], 0),  # of a weight all data-parallel ranks have copies, of this none
        )
        found.append(part)
        begin = end
    return found


def boxes(shape: Sequence[int], start: int, stop: int) -> Iterator[tuple[Shape, Shape]]:
    """Cut the elements from `start` to `stop` of a tensor, counted row by row, into boxes: offset and size of each."""
    if len(shape) < 2:
        yield tuple(start for _ in shape), tuple(stop - start for _ in shape)
        return
    row = math.prod(shape[1:])
    edges = (-(-start // row) * row, stop // row * row)  # of the whole rows, if there are any
    for begin, end in pairwise(sorted({start, stop, *(edge for edge in edges if start < edge < stop)})):
        first = begin // row
        if begin % row == end % row == 0:
            yield (first, *(0 for _ in shape[1:])), (end // row - first, *shape[1:])
            continue
        for offset, size in boxes(shape[1:], begin - first * row, end - first * row):
            yield (first, *offset), (1, *size)


def _held(optimizer: DistributedOptimizer) -> Iterator[tuple[Parameter, Range]]:
    """The weights of which this rank has a part of the state, and which of their elements."""
    for buffer in optimizer.gbuf_ranges:
        for buckets in buffer.values():
            for bucket in buckets:
                for weight, ranges in bucket["param_map"].items():
                    yield weight, ranges["param"]
