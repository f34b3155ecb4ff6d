"""Garbage collection at log lines only.

Python's own collector stops a rank at a moment of its choice, another one on each rank, and all wait for each.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def collected_by_hand() -> Iterator[Callable[[], int]]:
    """Inside, garbage is collected only when the yielded function is called; what was alive before is passed over."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield gc.collect
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()
