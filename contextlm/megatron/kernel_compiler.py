"""Can kernels be compiled here? On CUDA ours are Triton's, which builds a small C program around each of them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path

import torch


def compiler_problems() -> list[str]:
    """Why kernels cannot be compiled on this host, if it has a CUDA device: found now, not where they are needed."""
    if not torch.cuda.is_available():
        return []
    problems = []
    if importlib.util.find_spec("triton") is None:
        problems.append("CUDA: the package triton is missing, which torch for CUDA brings along; install it")
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        problems.append("CUDA: kernels are compiled with a C compiler, and there is none; install gcc, or set CC")
    scheme = sysconfig.get_default_scheme()
    # As Triton has it: Debian's scheme is one for what users install, and the headers are not there.
    header = Path(sysconfig.get_path("include", "posix_prefix" if scheme == "posix_local" else scheme), "Python.h")
    if not header.exists():
        problems.append(
            f"CUDA: kernels are compiled with Python's headers, and {header} is missing; install python3-dev"
        )
    return problems
