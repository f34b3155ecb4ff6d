"""Import megatron-core without importing a compiler.

What is wrong: megatron-core takes `torch.compile` for its `jit_fuser` (jit.py:21), with which two dozen functions are
decorated as their modules are imported. To decorate is to import torch._dynamo and torch._inductor: a third of the
seconds that a process takes to start, for functions of which our layers call none.
The mend: while megatron-core is imported, `torch.compile` decorates without them and compiles at the first call.
Test: tests/unit/megatron/test_lazy_compile.py.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch


@contextlib.contextmanager
def at_first_call() -> Iterator[None]:
    """Inside, what `@torch.compile` decorates is compiled when it is called for the first time."""
    original = torch.compile
    torch.compile = functools.partial(_lazy, original)
    try:
        yield
    finally:
        torch.compile = original


def _lazy(compiler: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, compiled at its first call."""

    @functools.cache
    def compiled() -> Callable[..., Any]:
        return compiler(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return compiled()(*args, **kwargs)

    return call
