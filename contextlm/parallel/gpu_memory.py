"""How torch holds a GPU's memory: in segments that grow, unless the environment says something of it.

A segment of a fixed size with one small tensor left in it cannot become part of a large one: with every layer computed
again, small tensors that stay lie between large ones that do not, and the logits find no room in memory that is half
empty. A segment that grows is mapped page by page, so that no size has to fit another.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
GROWING = "expandable_segments:True"


def said() -> str:
    """What the environment says of torch's memory, which then holds alone; "" for nothing."""
    read = VARIABLES if _newer() else VARIABLES[1:]
    return next((value for name in read if (value := os.environ.get(name))), "")


def grow_segments() -> None:
    """Have segments grow, of what is allocated from now on, unless the environment says something.

    Of this process's GPU. A virtual one may have no memory that can be mapped page by page, and ROCm's is young: both
    keep what torch does.
    """
    if said() or torch.version.hip:
        return
    tell(GROWING)
    try:
        torch.empty(1, device="cuda")
    except RuntimeError:  # of CUDA's driver: operation not supported
        tell("expandable_segments:False")


def tell(settings: str) -> None:
    """Give torch's allocator settings. It reads the environment when it likes: a variable set here may be too late."""
    (_newer() or torch.cuda.memory._set_allocator_settings)(settings)


def _newer() -> Callable[[str], None] | None:
    """What torch has since it reads the first of VARIABLES too, 2.10 or so."""
    return getattr(torch._C, "_accelerator_setAllocatorSettings", None)
