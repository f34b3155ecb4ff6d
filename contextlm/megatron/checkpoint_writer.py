"""Plan what a rank writes of a checkpoint, without a process for it.

What is wrong: `prepare_write_data` (dist_checkpointing/strategies/filesystem_async.py:157) starts a manager process for
a queue of results, which imports the whole program again (seconds of CPU on every rank) and outlives a rank that is
killed. Our writer is threads of the rank itself (checkpoints/shards.py), which need no such queue.
The mend: a queue of this process.
Test: tests/unit/megatron/test_checkpoint_writer.py.
"""

from __future__ import annotations

import inspect
import queue

from megatron.core.dist_checkpointing.strategies import filesystem_async

from contextlm.megatron.rewrite import SourceChanged

_MANAGER = "ctx.Manager().Queue()"


def install() -> None:
    """Apply the mend; calling it again changes nothing."""
    original = filesystem_async._get_write_results_queue
    if original is queue.Queue:
        return
    if _MANAGER not in inspect.getsource(original):
        raise SourceChanged(f"{original.__qualname__}: is this mend still needed?")
    filesystem_async._get_write_results_queue = queue.Queue
