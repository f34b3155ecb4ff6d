"""GPUs, memory, cores and the limits that the system sets a process."""

from __future__ import annotations

import importlib.util
import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil

from contextlm.byte_words import size
from contextlm.doctor.finding import OK, WARNING, Finding

_LEAST_FILES = 4096
_LEAST_SHARED = 10**9
_SHARED = Path("/dev/shm")
_INFINIBAND = Path("/sys/class/infiniband")


def machine() -> Iterator[Finding]:
    """One line each."""
    yield from _gpus()
    memory = psutil.virtual_memory()
    yield Finding("machine", "memory", f"{size(memory.available)} available of {size(memory.total)}")
    yield Finding("machine", "cores", _cores())
    yield from _limits()


def _cores() -> str:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{usable} of {os.cpu_count()}, load {os.getloadavg()[0]:.1f}"


def _gpus() -> Iterator[Finding]:
    has_driver = Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi") is not None
    if importlib.util.find_spec("torch") is None:
        return  # told elsewhere
    try:
        import torch

        count = torch.cuda.device_count() if torch.version.cuda else 0
    except Exception:  # told elsewhere
        return
    for index in range(count):
        found = torch.cuda.get_device_properties(index)
        yield Finding("machine", f"GPU {index}", f"{found.name}, {size(found.total_memory)}")
    if count == 0 and has_driver:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES") is not None
        remedy = "unset CUDA_VISIBLE_DEVICES" if hidden else "install a torch that was built for CUDA"
        yield Finding("machine", "GPU", "there is a driver of NVIDIA's, but torch sees no GPU", WARNING, remedy)
    elif count == 0:
        yield Finding("machine", "GPU", "none: runs are on the CPU")


def _limits() -> Iterator[Finding]:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = files != resource.RLIM_INFINITY and files < _LEAST_FILES
    remedy = f"raise it: ulimit -n {_LEAST_FILES}" if few else ""
    yield Finding("machine", "open files", _limit(files), WARNING if few else OK, remedy)
    locked, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    pinned = locked != resource.RLIM_INFINITY and _INFINIBAND.is_dir()
    remedy = "InfiniBand wants it unlimited: ulimit -l unlimited, docker --ulimit memlock=-1" if pinned else ""
    words = _limit(locked) if locked == resource.RLIM_INFINITY else size(locked)
    yield Finding("machine", "locked memory", words, WARNING if pinned else OK, remedy)
    if _SHARED.is_dir():
        shared = shutil.disk_usage(_SHARED).total
        small = shared < _LEAST_SHARED
        remedy = "NCCL and data loading use it: docker --ipc=host, or --shm-size 16g" if small else ""
        yield Finding("machine", "shared memory", size(shared), WARNING if small else OK, remedy)


def _limit(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else f"{value:,}"
