"""How torch holds a GPU's memory: in segments that grow, unless the environment says something of it.

A segment of a fixed size with one small tensor left in it cannot become part of a large one: with every layer computed
again, small tensors that stay lie between large ones that do not, and the logits find no room in memory that is half
empty. A segment that grows is mapped page by page, so that no size has to fit another.
"""

from __future__ import annotations

import os

import torch

VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
GROWING = "expandable_segments:True"


def said() -> str | None:
    """What the environment says of torch's memory, which then holds alone; None for nothing."""
    return next((os.environ[name] for name in VARIABLES if name in os.environ), None)


def grow_segments() -> None:
    """Have segments grow, of what is allocated from now on, unless the environment says something.

    Of this process's GPU; a virtual one may have no memory that can be mapped page by page, and keeps what torch does.
    """
    if said() is not None:
        return
    tell(GROWING)
    try:
        torch.empty(1, device="cuda")
    except RuntimeError:  # of CUDA's driver: operation not supported
        tell("expandable_segments:False")


def tell(settings: str) -> None:
    """Give torch's allocator settings. It reads the environment when it likes: a variable set here may be too late."""
    newer = getattr(torch._C, "_accelerator_setAllocatorSettings", None)  # from torch 2.9
    (newer or torch.cuda.memory._set_allocator_settings)(settings)
