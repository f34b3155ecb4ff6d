"""The first micro-batch's gradients are written to the buffer, not added to zeros.

What is slow: `zero_grad_buffer` (distributed/distributed_data_parallel.py:542) fills the buffer with zeros, and the
hook of each parameter (line 433) reads it to add the first gradient: 8 bytes of memory traffic for each fp32 gradient,
in every iteration, that say nothing.
The mend: a parameter is marked instead, and its next gradient copied. What got none is zeroed before it is reduced.
A part that knows `gradient_sums` leaves copying and adding to it (`gradient_sums.py`).
Test: tests/distributed/test_gradient_buffers.py.
"""

from __future__ import annotations

from megatron.core.distributed import DistributedDataParallel

from contextlm.megatron.rewrite import rewrite

_RESET = """    for buffer in self.buffers + self.expert_parallel_buffers:
        buffer.reset()
"""
_MARK = """    if self.gradient_sums is not None:
        self.gradient_sums.forget()
    for param in self.params_with_grad:
        param.main_grad_is_stale = True
"""
_ADD = """                param.main_grad.add_(param.grad.data)
"""
_COPY_FIRST = """                if self.gradient_sums is not None:
                    self.gradient_sums.take(param)
                elif getattr(param, 'main_grad_is_stale', False):
                    param.main_grad.copy_(param.grad)
                    param.main_grad_is_stale = False
                else:
                    param.main_grad.add_(param.grad)
"""
_FINISH = "    for bucket_group in self.bucket_groups + self.expert_parallel_bucket_groups:\n"
_ZERO_FIRST = (
    """    for param in self.params_with_grad:
        if getattr(param, 'main_grad_is_stale', False):
            param.main_grad.zero_()
            param.main_grad_is_stale = False
"""
    + _FINISH
)


def install() -> None:
    """Apply the mend; calling it again changes nothing."""
    DistributedDataParallel.gradient_sums = None
    rewrite(DistributedDataParallel.zero_grad_buffer, {_RESET: (_MARK, 1)})
    rewrite(DistributedDataParallel._make_backward_post_hook, {_ADD: (_COPY_FIRST, 1)})
    rewrite(DistributedDataParallel.finish_grad_sync, {_FINISH: (_ZERO_FIRST, 1)})
