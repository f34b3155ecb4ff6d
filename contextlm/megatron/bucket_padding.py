"""Save the distributed optimizer's state correctly when there is more than one bucket.

What is wrong: `get_parameter_state_dp_zero` (distrib_optimizer.py:1118) strips the padding at the end of
every bucket, but `sharded_param_state_fully_reshardable` (line 1501) slices the result with offsets that
still count it: with a second bucket the moments and master weights of its parameters are saved shifted,
silently. Reported upstream as NVIDIA/Megatron-LM 5077.
The mend: around that method, every offset of a bucket is lowered by the padding of the buckets before it.
Test: tests/distributed/test_bucket_padding.py.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterator
from typing import Any

from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

from contextlm.megatron.rewrite import SourceChanged

_SLICE = "world_tensors[state_key][param_world_start:param_world_end]"


@contextlib.contextmanager
def unpadded_offsets(optimizer: DistributedOptimizer) -> Iterator[None]:
    """Within the context, `param_index_map` of every buffer counts elements without bucket padding."""
    padded = [buffer.param_index_map for buffer in optimizer.buffers]
    for buffer in optimizer.buffers:
        padding_before, shift = 0, {}
        for bucket in buffer.buckets:
            shift[bucket.bucket_id] = padding_before
            padding_before += bucket.grad_data.numel() - bucket.numel_unpadded
        buffer.param_index_map = {
            param: (start - shift[bucket_id], end - shift[bucket_id], bucket_id)
            for param, (start, end, bucket_id) in buffer.param_index_map.items()
        }
    try:
        yield
    finally:
        for buffer, original in zip(optimizer.buffers, padded, strict=True):
            buffer.param_index_map = original


def install() -> None:
    """Apply the mend; calling it again changes nothing."""
    original = DistributedOptimizer.sharded_param_state_fully_reshardable
    if hasattr(original, "__wrapped__"):
        return
    if inspect.getsource(original).count(_SLICE) != 1:
        raise SourceChanged("DistributedOptimizer.sharded_param_state_fully_reshardable: is issue 5077 mended?")

    @functools.wraps(original)
    def mended(self: DistributedOptimizer, *args: Any, **kwargs: Any) -> Any:
        with unpadded_offsets(self):
            return original(self, *args, **kwargs)

    DistributedOptimizer.sharded_param_state_fully_reshardable = mended
